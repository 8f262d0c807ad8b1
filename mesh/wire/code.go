package wire

import "fmt"

// Code is the one vocabulary of outcomes: results of sends, reasons why a session closed, answers of control calls.
// Numbers are append-only and never change their meaning; compare codes, never texts.
type Code uint16

// Class says what somebody who was told a Code should do.
type Class uint8

const (
	Final          Class = iota // it succeeded, or trying again cannot help
	RetryHere                   // try again at the same node
	RetryElsewhere              // try again at another node
)

func (c Class) String() string {
	return [...]string{"final", "retry-here", "retry-elsewhere"}[min(c, RetryElsewhere)]
}

// Results of a send.
const (
	None        Code = 0 // no answer yet
	Delivered   Code = 1 // the owner took it while its lease held (ack=owner), or the client acknowledged it (ack=client)
	Offline     Code = 2 // a linearizable read found no route
	Unavailable Code = 3 // no quorum, or no node that may answer, within the time-out
	Timeout     Code = 4 // outcome not known: no answer within the message's time-out
	Unknown     Code = 5 // outcome not known: written, but the lease check after the write failed or the connection broke
	Overloaded  Code = 6 // a queue on the way is full; nothing was delivered
	TooLarge    Code = 7 // payload over the limit
	BadRequest  Code = 8 // a field is missing or malformed
	OutOfOrder  Code = 9 // a later message of the same sender already reached the recipient: this one may not follow it
	Forbidden   Code = 10
	Accepted    Code = 11 // ack=none over an interface that answers every call: taken for sending, nothing more
	NotOwner    Code = 12 // between nodes: this incarnation does not own that (client, epoch)
	RateLimited Code = 13 // the client or its tenant is over its limit: wait for retry_ms; nothing was delivered
	Joined      Code = 20 // a member of the group: whoever sends to it from now on reaches this session
	Left        Code = 21 // no member of the group any more
	GroupClosed Code = 22 // somebody closed the group: all its members were removed
)

// Reasons why a session was closed or a login refused.
const (
	Bye            Code = 100 // the client asked for it
	Replaced       Code = 101 // another SDK instance logged in under this id
	Superseded     Code = 102 // a later attempt of the same SDK instance took over
	Kicked         Code = 103 // an operator or back end closed the session
	IdleTimeout    Code = 104 // nothing heard for longer than idle
	Draining       Code = 105 // this node is being emptied
	LeaseLost      Code = 106 // this node may no longer deliver
	BadToken       Code = 107 // missing, malformed, wrongly signed, or for another client
	TokenExpired   Code = 108 // log in again with a new token
	SlowReader     Code = 109 // the client did not read what was sent to it
	ProtocolError  Code = 110 // malformed, oversized or unexpected frame
	Busy           Code = 111 // too many logins at once; wait for retry_ms
	AlreadyOnline  Code = 112 // duplicate login under policy "reject"
	LoginTimeout   Code = 113 // no login frame in time, or the registration did not hold in time
	BadVersion     Code = 114 // protocol version not spoken here
	ShuttingDown   Code = 115
	ConnectionLost Code = 116 // made up locally by whoever saw the connection break
	NoQuorum       Code = 117 // this node cannot register anybody at the moment
)

// Answers of control calls between nodes.
const (
	OK             Code = 200
	NotLeader      Code = 201 // ask the node named in the answer
	NotMember      Code = 202
	BadIncarnation Code = 203 // that incarnation ended or never was
	NotReady       Code = 204 // not yet: barrier not applied, still starting
	Refused        Code = 205 // refused for good; the text says why
	Internal       Code = 206
)

var codes = map[Code]struct {
	name  string
	class Class
}{
	None: {"none", Final}, Delivered: {"delivered", Final}, Offline: {"offline", Final}, Unavailable: {"unavailable", RetryHere},
	Timeout: {"timeout", RetryHere}, Unknown: {"unknown", RetryHere}, Overloaded: {"overloaded", RetryHere}, TooLarge: {"too_large", Final},
	BadRequest: {"bad_request", Final}, OutOfOrder: {"out_of_order", Final}, Forbidden: {"forbidden", Final}, Accepted: {"accepted", Final},
	NotOwner: {"not_owner", RetryHere}, RateLimited: {"rate_limited", RetryHere}, Joined: {"joined", Final}, Left: {"left", Final}, GroupClosed: {"group_closed", Final},
	Bye: {"bye", Final}, Replaced: {"replaced", Final}, Superseded: {"superseded", Final}, Kicked: {"kicked", Final},
	IdleTimeout: {"idle_timeout", RetryHere}, Draining: {"draining", RetryElsewhere}, LeaseLost: {"lease_lost", RetryElsewhere},
	BadToken: {"bad_token", Final}, TokenExpired: {"token_expired", RetryHere}, SlowReader: {"slow_reader", RetryHere},
	ProtocolError: {"protocol_error", Final}, Busy: {"busy", RetryElsewhere}, AlreadyOnline: {"already_online", Final},
	LoginTimeout: {"login_timeout", RetryElsewhere}, BadVersion: {"bad_version", Final}, ShuttingDown: {"shutting_down", RetryElsewhere},
	ConnectionLost: {"connection_lost", RetryElsewhere}, NoQuorum: {"no_quorum", RetryElsewhere},
	OK: {"ok", Final}, NotLeader: {"not_leader", RetryElsewhere}, NotMember: {"not_member", Final}, BadIncarnation: {"bad_incarnation", Final},
	NotReady: {"not_ready", RetryHere}, Refused: {"refused", Final}, Internal: {"internal", RetryHere},
}

func (c Code) String() string {
	if e, ok := codes[c]; ok {
		return e.name
	}
	return fmt.Sprintf("code_%d", uint16(c))
}

// Class of a code this version does not know is RetryElsewhere: a newer node may have meant anything by it.
func (c Code) Class() Class {
	if e, ok := codes[c]; ok {
		return e.class
	}
	return RetryElsewhere
}

// Known lists every code in the table with its name and class, for documents and tests.
func Known(yield func(Code, string, Class) bool) {
	for c, e := range codes {
		if !yield(c, e.name, e.class) {
			return
		}
	}
}

// Error is a Code with a text for people. The zero Text is the code's name.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Code.String()
	}
	return e.Code.String() + ": " + e.Text
}

// Errorf makes an *Error.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{c, fmt.Sprintf(format, args...)}
}
