package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"imroute/mesh/wire"
)

// errStreamEnded is the cause of an unavailable error after EventEnd.
var errStreamEnded = errors.New("the node ended the stream")

// WatchRoutes follows the table of the first node that answers and calls f for every event, heartbeats and the end left
// out, until the context ends (its error is returned) or f returns an error (which is returned). It never returns nil:
// a stream that ends or falls silent is an error (unavailable, unreachable or timeout), and the caller may simply call
// again: what was missed in between is announced by EventResync, with which each stream begins.
func (c *Client) WatchRoutes(ctx context.Context, q WatchQuery, f func(RouteEvent) error) error {
	v := query("client", q.Client, "prefix", q.Prefix)
	setTenant(v, q.Tenant)
	path := withQuery("/v1/routes/watch", v)

	var resp *http.Response
	var from string
	var sctx context.Context // of the stream
	var stop context.CancelCauseFunc
	err := c.each(ctx, question, func(_ context.Context, base string) error {
		// The stream outlives the attempt, so it hangs on the caller's context; only its opening has a limit.
		actx, cancel := context.WithCancelCause(ctx)
		open := time.AfterFunc(min(c.cfg.Timeout, maxSilence), func() { cancel(context.DeadlineExceeded) })
		r, err := c.send(actx, http.MethodGet, base, path, nil)
		opened := open.Stop()
		switch {
		case err == nil && opened && r.StatusCode == http.StatusOK:
			resp, from, sctx, stop = r, base, actx, cancel
			return nil
		case err == nil && opened:
			err = readError(r)
		case !opened && ctx.Err() == nil:
			err = unreachable(base, context.DeadlineExceeded)
		}
		if r != nil {
			_ = r.Body.Close()
		}
		cancel(nil)
		return err
	})
	if err != nil {
		return err
	}
	defer stop(nil)
	defer resp.Body.Close()
	silence := time.AfterFunc(maxSilence, func() { stop(context.DeadlineExceeded) })
	defer silence.Stop()
	lines := bufio.NewReaderSize(resp.Body, 16<<10)
	for {
		line, err := readLine(lines)
		if err != nil {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case sctx.Err() != nil:
				return unreachable(from, context.Cause(sctx)) // silent for too long
			}
			return unreachable(from, err)
		}
		silence.Reset(maxSilence)
		var ev RouteEvent
		if err := json.Unmarshal(line, &ev); err != nil {
			return notOurs(from, err)
		}
		switch ev.Event {
		case EventHeartbeat:
			continue
		case EventEnd:
			if ev.Status == StatusUnauthorized { // it would not be let in at another node either
				return Errorf(ev.Status, "%s ended the stream: %s", hostOf(from), ev.Reason).WithHint("%s", errKeyGone.Hint)
			}
			return &Error{
				Code: wire.ShuttingDown, Status: StatusUnavailable, Err: errStreamEnded,
				Text: hostOf(from) + " ended the stream: " + ev.Reason, Hint: "watch again, at another node",
			}
		}
		if err := f(ev); err != nil {
			return err
		}
	}
}

// maxSilence is how long a stream may be silent before it counts as broken: the server's heartbeats are far closer.
const maxSilence = 20 * time.Second

// readLine reads one line of bounded length.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return nil, errors.New("a line is too long")
	}
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF // the end has a line of its own
	}
	return line, err
}
