package mesh

import (
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

var (
	// ErrUnreachable: no connection could be made, or it broke. See CallError for whether the request may have arrived.
	ErrUnreachable = errors.New("node unreachable")
	// ErrNotMember: Config.Members does not know the node, or it does not know us.
	ErrNotMember = errors.New("not a member of this cluster")
	// ErrClosed: the mesh was closed or not opened yet.
	ErrClosed = errors.New("mesh is not open")
	// ErrIdentity: a certificate is not what it has to be. The error wrapping it says what is wrong.
	ErrIdentity = errors.New("certificate refused")
	// ErrWrongCluster: a join token was shown to a cluster with another CA.
	ErrWrongCluster = errors.New("the token belongs to another cluster")
)

// CallError says how a call to another node failed on the way. It is ErrUnreachable to errors.Is.
type CallError struct {
	Node wire.NodeID
	Sent bool // the request may have arrived and taken effect
	Err  error
}

func (e *CallError) Error() string {
	if e.Sent {
		return fmt.Sprintf("node %v: connection broke before the answer came: %v", e.Node, e.Err)
	}
	return fmt.Sprintf("node %v unreachable: %v", e.Node, e.Err)
}

// Unwrap gives the cause.
func (e *CallError) Unwrap() error { return e.Err }

// Is makes every CallError an ErrUnreachable.
func (e *CallError) Is(target error) bool { return target == ErrUnreachable }

// Why a connection was closed, as the QUIC application error code. Append-only.
const (
	closeBye         quic.ApplicationErrorCode = 0
	closeNotMember   quic.ApplicationErrorCode = 1
	closeIdentity    quic.ApplicationErrorCode = 2
	closeCrossed     quic.ApplicationErrorCode = 3 // the other one of two overlapping connections stays
	closeReplaced    quic.ApplicationErrorCode = 4
	closeProtocol    quic.ApplicationErrorCode = 5
	closeBusy        quic.ApplicationErrorCode = 6
	closeHelloUnread quic.ApplicationErrorCode = 7 // the dialler gave up before the hello was answered
	closeTwin        quic.ApplicationErrorCode = 8 // another process of the same node stays, see twins
)

// closedBecause makes a typed error of what the other side gave as its reason for closing.
func closedBecause(err error) error {
	app, ok := errors.AsType[*quic.ApplicationError](err)
	if !ok || !app.Remote {
		return err
	}
	switch app.ErrorCode {
	case closeNotMember:
		return fmt.Errorf("it refuses us: %s: %w", app.ErrorMessage, ErrNotMember)
	case closeIdentity:
		return fmt.Errorf("it refuses us: %s: %w", app.ErrorMessage, ErrIdentity)
	case closeCrossed:
		return errCrossed
	case closeTwin:
		return fmt.Errorf("it refuses us: %w", ErrTwin)
	case closeBusy:
		return wire.Errorf(wire.Busy, "%s", app.ErrorMessage)
	}
	return err
}

// errCrossed ends a dial whose connection gave way to one the peer dialled at the same time.
var errCrossed = errors.New("gave way to the connection dialled by the other side")
