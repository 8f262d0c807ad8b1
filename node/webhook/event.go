// Package webhook tells a back end over HTTP what happens to clients: connected, disconnected, undeliverable.
//
// Promised: events of one client from one Sender arrive in their order; an event that was taken in is sent until the back end has
// answered 2xx, for as long as the process lives (so it may arrive twice: ID is the same then); what does not fit into the
// bounded queue is dropped and counted. Not promised: order among nodes, which the epoch gives back, and events of a process
// that is killed.
//
// Asker is the other direction: what the back end knows (what a client may do, who its friends are) is asked of it, by requests
// that are signed in the same way.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// Kinds of events.
const (
	Connected     = "connected"     // a session of Client holds its registration, at Epoch
	Disconnected  = "disconnected"  // that session is over; Reason is the close code's name, or node_lost
	Undeliverable = "undeliverable" // a message to Client ended otherwise than delivered; Reason is the result's name
)

// NodeLost is the reason of sessions whose node died: the leader reports them.
const NodeLost = "node_lost"

var kinds = []string{Connected, Disconnected, Undeliverable}

// Event is one thing that happened.
type Event struct {
	// ID is the same whenever the same thing is reported again, by whichever node: remember it to drop repetitions.
	ID      string     `json:"id"`
	Event   string     `json:"event"`
	Time    time.Time  `json:"time"` // by the clock of the node that reports it
	Node    string     `json:"node"` // that the session was on; of Undeliverable, the sender's
	Client  string     `json:"client"`
	Tenant  string     `json:"tenant"`
	Epoch   wire.Epoch `json:"epoch,string,omitempty"` // rises with each session of a client: what has a lower one is older
	Reason  string     `json:"reason,omitempty"`
	From    string     `json:"from,omitempty"`    // of Undeliverable: the message's sender
	Message string     `json:"message,omitempty"` // of Undeliverable: its id
}

// Session makes an event of a session.
func Session(kind, node string, client wire.ClientID, epoch wire.Epoch, reason string) Event {
	return Event{
		ID: fmt.Sprintf("%s-%d", kind, uint64(epoch)), Event: kind, Time: time.Now().UTC(), Node: node, Client: client.ID, Tenant: client.Tenant, Epoch: epoch, Reason: reason,
	}
}

// Message makes the event of a message that did not get through.
func Message(node string, to wire.ClientID, from string, id wire.MessageID, result wire.Code) Event {
	return Event{
		ID: fmt.Sprintf("%s-%s-%016x", Undeliverable, id, to.Hash()), Event: Undeliverable, Time: time.Now().UTC(), Node: node,
		Client: to.ID, Tenant: to.Tenant, Reason: result.String(), From: from, Message: id.String(),
	}
}

// body is what is posted.
type body struct {
	Events []Event `json:"events"`
}

// SignatureHeader carries "t=UNIX,v1=HEX": the second at which it was sent, and the HMAC-SHA256, under the secret, of that number,
// a dot and the body.
const SignatureHeader = "Imroute-Signature"

// Sign makes the header's value.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac(secret, t, body))
}

func mac(secret, t string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(t + "."))
	h.Write(body)
	return h.Sum(nil)
}

// ErrSignature: the body is not from who has the secret, or is an old one sent again.
var ErrSignature = errors.New("the signature does not fit")

// Verify checks a header's value against the body as it was received, for back ends in Go. Signatures that are further than
// tolerance from now are refused, so that nobody can send an old body again later; 0 leaves that out.
func Verify(secret, header string, body []byte, now time.Time, tolerance time.Duration) error {
	var t string
	var sums []string
	for part := range strings.SplitSeq(header, ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			t = value
		case "v1":
			sums = append(sums, value)
		}
	}
	at, err := strconv.ParseInt(t, 10, 64)
	if err != nil || len(sums) == 0 {
		return fmt.Errorf("%w: want t=UNIX,v1=HEX", ErrSignature)
	}
	if tolerance > 0 && (at < now.Add(-tolerance).Unix() || at > now.Add(tolerance).Unix()) {
		return fmt.Errorf("%w: its time is %d", ErrSignature, at)
	}
	want := mac(secret, t, body)
	for _, sum := range sums {
		if got, err := hex.DecodeString(sum); err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return ErrSignature
}

// ParseEvents reads names of events; none means all.
func ParseEvents(names []string) ([]string, error) {
	if len(names) == 0 {
		return slices.Clone(kinds), nil
	}
	for _, name := range names {
		if !slices.Contains(kinds, name) {
			return nil, fmt.Errorf("webhook-events: unknown event %q: want some of %s", name, strings.Join(kinds, ", "))
		}
	}
	return names, nil
}
