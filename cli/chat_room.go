package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// chatSilent is how long a room believes in somebody of whom nothing is heard; then it asks, a few at a time. The cluster
// says "offline" only when it is true. Who answers nothing although messages arrive is in the room no more.
const (
	chatSilent    = 30 * time.Second
	chatAskEvery  = 10 * time.Second
	chatAskAtOnce = 5
	chatAskTimes  = 3
	chatMaxPeople = 500
	chatMaxText   = 4000 // bytes of one line; more is not sent, and not shown
)

// chatFrame is what members of a room send each other, as JSON. The chat page of development mode speaks the same; its
// chat.js says what each type means.
type chatFrame struct {
	Room   string `json:"room"`
	Type   string `json:"type"`
	Node   string `json:"node,omitempty"`
	Addr   string `json:"addr,omitempty"`
	Before string `json:"before,omitempty"`
	Text   string `json:"text,omitempty"`
}

// chatEvent is what happened in a room: one line of "chat --output json".
type chatEvent struct {
	Event  string `json:"event"` // entered, moved, lost, closed: oneself; joined, here, changed, said, left, gone: somebody; unsent, unheard, slowed: what was sent; who, help, unknown: an answer
	Name   string `json:"name,omitempty"`
	Node   string `json:"node,omitempty"`
	Addr   string `json:"addr,omitempty"`
	Before string `json:"before,omitempty"` // the node that it was connected to
	Text   string `json:"text,omitempty"`
	Direct bool   `json:"direct,omitempty"` // sent to this client alone
	Reason string `json:"reason,omitempty"`
}

// chatSender is the part of the SDK that a room needs.
type chatSender interface {
	SendToAsync(to client.Address, payload []byte, ack wire.AckMode, timeout time.Duration, done func(client.Result)) (wire.MessageID, error)
}

// chatSayer is the part that waits for the result.
type chatSayer interface {
	SendTo(ctx context.Context, to client.Address, payload []byte, opts ...client.SendOption) (client.Result, error)
}

type chatPerson struct {
	name, node, addr string
	heard            time.Time
	asked            int
}

// chatRoom is one room as one of its members knows it. Its methods may be called from several goroutines; show is called by
// one at a time, in the order of what happened.
type chatRoom struct {
	me, name string
	show     func(chatEvent)

	mu         sync.Mutex
	c          chatSender // nil before enter
	node, addr string     // where we are connected
	losing     bool       // the connection was lost and that was told
	people     map[string]*chatPerson
}

func newChatRoom(me, name string, show func(chatEvent)) *chatRoom {
	return &chatRoom{me: me, name: name, show: show, people: map[string]*chatPerson{}}
}

func (r *chatRoom) group() string { return "room:" + r.name }

// enter announces this client. The connection is in the room's group already.
func (r *chatRoom) enter(c chatSender) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.c = c
	r.show(chatEvent{Event: "entered", Name: r.me, Node: r.node, Addr: r.addr})
	r.castLocked(chatFrame{Type: "join"})
}

// leave says goodbye; whoever closes the connection lets it leave first.
func (r *chatRoom) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		r.castLocked(chatFrame{Type: "leave"})
	}
}

func (r *chatRoom) typing() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		r.castLocked(chatFrame{Type: "typing"})
	}
}

func (r *chatRoom) castLocked(f chatFrame) { r.sendLocked(client.ToGroup(r.group()), f) }

// sendLocked sends without waiting. What is lost here comes again, or is asked for; but who comes in is to be heard by everybody
// who did so before, and for that the cluster has to be asked.
func (r *chatRoom) sendLocked(to client.Address, f chatFrame) {
	ack, done := wire.AckNone, (func(client.Result))(nil)
	if f.Type == "join" {
		ack, done = wire.AckOwner, r.announced
	}
	_, _ = r.c.SendToAsync(to, r.encode(f, r.node, r.addr), ack, 0, done)
}

// announced takes how the message ended that said that this client came in. If it was refused, the others learn of it by what it says.
func (r *chatRoom) announced(res client.Result) {
	switch res.Code {
	case wire.RateLimited, wire.Forbidden, wire.Overloaded:
		r.told(chatEvent{Event: "unheard", Reason: res.Code.String()})
	}
}

func (r *chatRoom) encode(f chatFrame, node, addr string) []byte {
	f.Room, f.Node, f.Addr = r.name, node, addr
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings can always be written
	}
	return b
}

// say sends a line to the room and waits for the result, which counts this client as well.
func (r *chatRoom) say(ctx context.Context, c chatSayer, text string, timeout time.Duration) (client.Result, error) {
	r.mu.Lock()
	payload := r.encode(chatFrame{Type: "say", Text: text}, r.node, r.addr)
	r.mu.Unlock()
	return c.SendTo(ctx, client.ToGroup(r.group()), payload, client.WithTimeout(timeout))
}

// connected takes note of where this client is now.
func (r *chatRoom) connected(node, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.node
	r.node, r.addr, r.losing = node, addr, false
	if r.c == nil || before == "" {
		return // enter will say it
	}
	r.show(chatEvent{Event: "moved", Name: r.me, Node: node, Addr: addr, Before: before})
	r.castLocked(chatFrame{Type: "move", Before: before})
}

// lost reports whether this is the first that is heard of a lost connection.
func (r *chatRoom) lost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.c != nil && !r.losing
	r.losing = true
	return first
}

// told is for what happens to this client itself.
func (r *chatRoom) told(e chatEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.show(e)
}

// hear takes what somebody sent to the group (direct: to this client alone).
func (r *chatRoom) hear(from string, direct bool, payload []byte) {
	if from == r.me {
		return // a group's message comes back to its sender
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var f chatFrame
	switch err := json.Unmarshal(payload, &f); {
	case err != nil || f.Room == "" || f.Type == "":
		r.show(chatEvent{Event: "said", Name: from, Text: string(payload), Direct: direct}) // from somebody who is not in a room
		return
	case f.Room != r.name:
		return
	}
	known := r.people[from] != nil
	if f.Type == "leave" {
		r.goneLocked(from, "left", "")
		return
	}
	var p *chatPerson
	if f.Type != "ask" {
		p = r.noteLocked(from, f)
	}
	switch f.Type {
	case "join":
		r.show(chatEvent{Event: "joined", Name: from, Node: p.node, Addr: p.addr})
		r.sendLocked(client.ToClient(from), chatFrame{Type: "here"})
	case "move":
		r.show(chatEvent{Event: "changed", Name: from, Node: p.node, Addr: p.addr, Before: f.Before})
		r.sendLocked(client.ToClient(from), chatFrame{Type: "here"})
	case "here":
		if !known {
			r.show(chatEvent{Event: "here", Name: from, Node: p.node, Addr: p.addr})
		}
	case "ask":
		r.sendLocked(client.ToClient(from), chatFrame{Type: "here"})
	case "say":
		r.show(chatEvent{Event: "said", Name: from, Node: p.node, Addr: p.addr, Text: f.Text, Direct: direct})
	}
}

// noteLocked remembers that somebody was heard, and where.
func (r *chatRoom) noteLocked(name string, f chatFrame) *chatPerson {
	p := r.people[name]
	if p == nil {
		if len(r.people) >= chatMaxPeople { // somebody has to go: who was silent for longest
			oldest := name
			for n, o := range r.people {
				if oldest == name || o.heard.Before(r.people[oldest].heard) {
					oldest = n
				}
			}
			delete(r.people, oldest)
		}
		p = &chatPerson{name: name}
		r.people[name] = p
	}
	p.heard, p.asked = time.Now(), 0
	if f.Node != "" {
		p.node, p.addr = f.Node, f.Addr
	}
	return p
}

func (r *chatRoom) goneLocked(name, event, reason string) {
	if p := r.people[name]; p != nil {
		delete(r.people, name)
		r.show(chatEvent{Event: event, Name: name, Node: p.node, Addr: p.addr, Reason: reason})
	}
}

// askSilent asks some of those that were not heard for long whether they are still there.
func (r *chatRoom) askSilent(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c == nil {
		return
	}
	asked := 0
	for _, p := range r.sortedLocked() {
		if now.Sub(p.heard) <= chatSilent {
			continue
		}
		if p.asked++; p.asked > chatAskTimes {
			r.goneLocked(p.name, "gone", "not in this room any more")
			continue
		}
		if asked++; asked > chatAskAtOnce {
			return
		}
		name := p.name
		_, _ = r.c.SendToAsync(client.ToClient(name), r.encode(chatFrame{Type: "ask"}, r.node, r.addr), wire.AckOwner, 0, func(res client.Result) {
			if res.Code == wire.Offline {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.goneLocked(name, "gone", wire.Offline.String())
			}
		})
	}
}

// here lists who is known to be in the room, by name, this client first.
func (r *chatRoom) here() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []string{chatWho(r.me, r.node)}
	for _, p := range r.sortedLocked() {
		list = append(list, chatWho(p.name, p.node))
	}
	return list
}

func (r *chatRoom) sortedLocked() []*chatPerson {
	list := make([]*chatPerson, 0, len(r.people))
	for _, p := range r.people {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *chatPerson) int { return cmp.Compare(a.name, b.name) })
	return list
}

// chatWho is a name with its node.
func chatWho(name, node string) string {
	if node == "" {
		return name
	}
	return name + " (" + node + ")"
}

// text is an event for people, without the end of the line.
func (e chatEvent) text() string {
	place := e.Node
	if e.Addr != "" {
		place += ", " + e.Addr
	}
	var s string
	switch e.Event {
	case "entered":
		s = "* you are in, as " + e.Name + " (" + place + ")"
	case "moved":
		s = "* you moved from " + e.Before + " to " + place
		if e.Before == e.Node {
			s = "* you are back at " + place
		}
	case "lost":
		s = "* the connection was lost (" + e.Reason + "), trying other nodes"
	case "waiting":
		s = "* waiting until your former node's lease is over (" + e.Reason + " at most)"
	case "closed":
		s = "* closed (" + e.Reason + ")"
	case "joined":
		s = "* " + e.Name + " came in (" + place + ")"
	case "here":
		s = "* " + e.Name + " is here (" + place + ")"
	case "changed":
		s = "* " + e.Name + " moved from " + e.Before + " to " + e.Node
		if e.Before == e.Node {
			s = "* " + e.Name + " is back at " + e.Node
		}
	case "left":
		s = "* " + e.Name + " left"
	case "gone":
		s = "* " + e.Name + " is gone (" + e.Reason + ")"
	case "unheard":
		s = "* the others were not told that you came in (" + e.Reason + ")"
	case "unsent":
		s = "* not sent: " + e.Text + " (" + e.Reason + ")"
	case "said":
		who := chatWho(e.Name, e.Node)
		if e.Direct {
			who += " to you alone"
		}
		text := e.Text
		if len(text) > chatMaxText {
			text = strings.ToValidUTF8(text[:chatMaxText], "") + "…" // the cut may have gone through a letter
		}
		s = who + ": " + text
	default:
		s = "* " + e.Text
	}
	return printable(strings.TrimRight(s, "\r\n")) // one line, whatever others say
}
