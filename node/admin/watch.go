package admin

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// watchBuffer is how many events wait for the connection. Behind it the backend's emit blocks, and it is the backend that
// drops and resynchronises.
const watchBuffer = 64

// watch streams events, one JSON object a line, until the caller goes, reads too slowly, or the server closes.
func (s *Server) watch(r *request, w http.ResponseWriter) {
	q, err := s.watchQuery(r)
	if err != nil {
		s.fail(w, asError(err))
		return
	}
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		w.Header().Set("Retry-After", "1")
		s.fail(w, Errorf(StatusOverloaded, "too many watches are open at this node").WithHint("watch at another node"))
		return
	}

	ctx, cancel := context.WithCancel(r.Context())
	events := make(chan RouteEvent, watchBuffer)
	ended := make(chan error, 1)
	go func() {
		defer close(events)
		err := errors.New("the node failed while watching") // stands if the backend panics
		s.guard(r, func() {
			err = s.cfg.Backend.WatchRoutes(ctx, q, func(ev RouteEvent) error {
				select {
				case events <- ev:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
		ended <- err
	}()
	// Joined in every case: the backend ends by ctx, and events is drained so that nothing can hold it.
	defer func() {
		cancel()
		for range events {
		}
	}()

	// A backend that refuses at once is answered with an error like any other call.
	var first RouteEvent
	select {
	case ev, ok := <-events:
		if !ok {
			s.fail(w, asError(watchEnd(<-ended)))
			return
		}
		first = ev
	case <-time.After(s.cfg.Heartbeat):
		first = RouteEvent{Event: EventHeartbeat}
	case <-s.closing:
		s.fail(w, asError(errClosing()))
		return
	case <-ctx.Done():
		if keyGone(ctx) {
			s.fail(w, errKeyGone)
		}
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s.stream(ctx, w, first, events, ended)
}

// stream writes the lines. It is the only one that writes.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, ev RouteEvent, events <-chan RouteEvent, ended <-chan error) {
	rc := http.NewResponseController(w)
	beat := time.NewTicker(s.cfg.Heartbeat)
	defer beat.Stop()
	for {
		raw, err := encode(ev)
		if err != nil {
			s.log.Error("a route event cannot be encoded", "err", err)
			return
		}
		s.writeDeadline(w, s.cfg.WriteTimeout)
		if _, err := w.Write(raw); err != nil {
			return
		}
		last := ev.Event == EventEnd
		if len(events) == 0 || last {
			if err := rc.Flush(); err != nil {
				return
			}
		}
		if last {
			return
		}
		// Closing comes first: a busy stream would otherwise go on by chance.
		select {
		case <-s.closing:
			ev = shutdownEvent()
			continue
		case <-ctx.Done():
			if !keyGone(ctx) {
				return
			}
			ev = endEvent(errKeyGone)
			continue
		default:
		}
		var ok bool
		select {
		case ev, ok = <-events:
			if !ok {
				e := asError(watchEnd(<-ended))
				if keyGone(ctx) {
					e = errKeyGone // the backend ended because of it
				}
				ev = endEvent(e)
			}
		case <-beat.C:
			ev = RouteEvent{Event: EventHeartbeat}
		case <-s.closing:
			ev = shutdownEvent()
		case <-ctx.Done():
			if !keyGone(ctx) {
				return
			}
			ev = endEvent(errKeyGone)
		}
	}
}

// endEvent is the last line of a stream.
func endEvent(e *Error) RouteEvent {
	return RouteEvent{Event: EventEnd, Reason: e.Text, Status: e.Status}
}

func shutdownEvent() RouteEvent {
	return RouteEvent{Event: EventEnd, Reason: errShutdown.Error(), Status: StatusUnavailable}
}

// keyGone says that a request ended because its caller's key does not hold any more.
func keyGone(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errKeyGone) }

func (s *Server) watchQuery(r *request) (q WatchQuery, err error) {
	v, err := r.query("tenant", "client", "prefix")
	if err != nil {
		return q, err
	}
	q = WatchQuery{Tenant: tenantParam(v), Client: v.Get("client"), Prefix: v.Get("prefix")}
	if q.Client != "" && q.Prefix != "" {
		return q, Errorf(StatusBadRequest, `parameters "client" and "prefix" are both given`).WithHint("give one of them")
	}
	if q.Client != "" {
		if _, err := clientID(`parameter "client"`, v.Get("tenant"), q.Client); err != nil {
			return q, err
		}
	}
	return q, checkPrefix(q.Prefix)
}

func errClosing() *Error {
	return Errorf(StatusUnavailable, "%v", errShutdown).WithHint("ask another node")
}

// watchEnd is why a backend ended a watch by itself.
func watchEnd(err error) error {
	if err == nil {
		return Errorf(StatusUnavailable, "the node ended the watch").WithHint("watch again")
	}
	return err
}
