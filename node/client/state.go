package client

import (
	"errors"
	"fmt"
	"time"

	"imroute/mesh/wire"
)

// StateKind says what a State reports.
type StateKind uint8

const (
	// Closed: there is no session. Code and Text say why, Retrying whether the Client tries again, After when.
	Closed StateKind = iota
	// Waiting: a login was taken and waits until the client id's former owner is fenced; Left at most.
	Waiting
	// Connected: a session holds. Addr, Node and Epoch are set.
	Connected
)

func (k StateKind) String() string {
	return [...]string{"closed", "waiting", "connected"}[min(k, Connected)]
}

// State is what a Client's connection is like, or what just happened to it.
type State struct {
	Kind     StateKind
	Addr     string        // where
	Node     string        // Connected: the node's name
	Epoch    wire.Epoch    // Connected: the session's fencing token
	Left     time.Duration // Waiting: at most this long from now
	Code     wire.Code     // Closed: why
	Text     string        // Closed: for people
	Retrying bool          // Closed: another login follows
	After    time.Duration // Closed: in about this time; 0: it is under way already
	Peer     Peer          // Closed: what took the connection, if that is known not to be a node's client port
}

func (s State) String() string {
	switch s.Kind {
	case Connected:
		return fmt.Sprintf("connected to %s (%s), epoch %d", s.Node, s.Addr, s.Epoch)
	case Waiting:
		return fmt.Sprintf("waiting at %s, %s left at most", s.Addr, s.Left)
	}
	why := s.Code.String()
	if s.Text != "" && s.Text != why {
		why += " (" + s.Text + ")"
	}
	if s.Retrying {
		return fmt.Sprintf("closed: %s, next login in %s", why, s.After)
	}
	return "closed: " + why
}

var (
	// ErrClosed ends whatever was under way when Close was called.
	ErrClosed = errors.New("client is closed")
	// ErrOverloaded: QueueBytes or MaxInFlight is reached; nothing was sent. Wait for results, or for the connection.
	ErrOverloaded error = &wire.Error{Code: wire.Overloaded, Text: "too much is waiting in this client: wait for results, or raise QueueBytes or MaxInFlight"}
)
