package gateway

import (
	"context"
	"time"

	"imroute/mesh/wire"
)

// Backend is the node as the gateway sees it. All methods may be called from many goroutines at once, and the gateway holds
// no lock while it calls them.
type Backend interface {
	// Login registers s and returns what welcome needs. It runs on the session's own goroutine and may block until ctx ends
	// (Config.LoginTimeout, or the session was closed meanwhile). waiting tells the client that its former owner is being
	// fenced and how long that can take at most. The backend may call s.Deliver, s.Open, s.Close before Login returns.
	//
	// A refusal is a *wire.Error, whose Code and Text go to the client in a kick. Any other error is told as LoginTimeout
	// if ctx has ended and as Internal otherwise.
	Login(ctx context.Context, s *Session, waiting func(left time.Duration)) (Welcome, error)

	// Send routes a message. f and its payload are valid only during the call, which runs on the session's read goroutine
	// and must not block long. How it ended is told through s.Result.
	Send(s *Session, f *wire.Frame)

	// Join makes s a member of a group and tells it through s.Result, with id, once the cluster knows; Leave ends that. Both
	// run on the session's read goroutine and must not block.
	Join(s *Session, group string, id uint64)
	Leave(s *Session, group string, id uint64)

	// Serve makes s an instance of a service that takes up to limit requests at a time (0: the backend decides), Unserve ends
	// that. They tell and run as Join and Leave do.
	Serve(s *Session, service string, limit int, id uint64)
	Unserve(s *Session, service string, id uint64)

	// Watch tells s through s.Presence of the clients ids, or of those on a list (wire.FriendsList), first their present states and
	// then, after a result with id, every change. Unwatch ends that for ids, for the list or, without either, for all. The
	// strings are the backend's to keep. Both run on the session's read goroutine and must not block.
	Watch(s *Session, ids []string, list string, id uint64)
	Unwatch(s *Session, ids []string, list string, id uint64)

	// Closed says that s has ended: no deliver frame will be written to it any more, everything accepted was reported through
	// Receipt, and Send will not be called for it again. It is called exactly once for every session for which Login was
	// called, always after Login returned.
	Closed(s *Session)

	// LeaseLeft is for how much longer the node's lease holds; not positive: it does not. It must be cheap: it is asked
	// before each write, whose deadline it caps, and again before `delivered` is reported. After it turns positive again,
	// call Gateway.Wake to deliver at once what had to wait.
	LeaseLeft() time.Duration

	// Alternatives lists client addresses of other nodes for a transport ("tcp" or "ws"), best first. The gateway keeps none.
	Alternatives(transport string) []string

	// NodeName is this node's name for people, told in welcome.
	NodeName() string
}

// Welcome is what a registration that holds brings.
type Welcome struct {
	Epoch wire.Epoch
}

// Receipt is implemented by whoever handed a message to Session.Deliver and wants to know how it ended.
type Receipt interface {
	// Receipt is called once for each accepted message with an ack mode of owner or client, from any goroutine and with no
	// lock held. It must not block.
	Receipt(ref uint64, code wire.Code)
}

// Transports, as in Session.Transport and Backend.Alternatives.
const (
	TransportTCP = "tcp"
	TransportWS  = "ws"
)

// Subprotocol is the WebSocket subprotocol a client must offer; PathWS is where the WebSocket endpoint is mounted.
const (
	Subprotocol = "imroute.v1.json"
	PathWS      = "/v1/ws"
)
