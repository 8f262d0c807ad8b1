package cli

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// listenWith serves each connection with f, which closes it.
func listenWith(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// TestWhatAnswersALogin: whoever names a wrong address, or a node that turns logins away, is told which of the two it is.
func TestWhatAnswersALogin(t *testing.T) {
	api := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(api.Close)
	admin := strings.TrimPrefix(api.URL, "http://")
	mute := listenWith(t, func(c net.Conn) { _ = c.Close() })
	silent := listenWith(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		<-t.Context().Done()
		_ = c.Close()
	})
	kicks := func(k wire.Frame) string {
		return listenWith(t, func(c net.Conn) {
			defer c.Close()
			var f wire.Frame
			r := wire.NewFrameReader(c, 0)
			_ = r.Next(&f) // whatever it is
			k.Type = wire.TypeKick
			_, _ = c.Write(wire.AppendFrame(nil, &k))
			_ = r.Next(&f) // until the client has gone
		})
	}
	busy := kicks(wire.Frame{Code: wire.Busy, Text: "the operator's login webhook fails"})
	for _, c := range []struct {
		name, addr string
		timeout    string
		exit       int
		want       []string
		under      time.Duration
	}{
		{"admin", admin, "20s", ExitError, []string{admin, "is it the admin address", "node list"}, 10 * time.Second},
		{"ws-admin", "ws://" + admin, "20s", ExitError, []string{"answered 404", "is this the WebSocket address of a node?"}, 10 * time.Second},
		{"tls-admin", "tls://" + admin, "20s", ExitError, []string{"does not speak TLS"}, 10 * time.Second},
		{"ws-tcp", "ws://" + busy, "20s", ExitError, []string{"does not speak WebSocket"}, 10 * time.Second},
		{"one-of-two", admin + "," + mute, "2s", ExitError, []string{admin, "is it the admin address"}, 0},
		{"mute", mute, "200ms", ExitError, []string{mute + " takes connections and closes them without a word", "tls://"}, 0},
		{"silent", silent, "200ms", ExitNoQuorum, []string{"unavailable: cannot log in", "cluster health"}, 0},
		{"webhook", busy, "200ms", ExitError, []string{"busy: the operator's login webhook fails", "cluster health"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			exit, out, errs := newWorld(t).run("client", "send", "--to", "bob", "--addr", c.addr, "--timeout", c.timeout, "hi")
			if exit != c.exit {
				t.Errorf("exit %d, want %d: %s", exit, c.exit, out+errs)
			}
			for _, w := range c.want {
				if !strings.Contains(errs, w) {
					t.Errorf("no %q in: %s", w, errs)
				}
			}
			if took := time.Since(begun); c.under != 0 && took > c.under {
				t.Errorf("it took %v to find out", took)
			}
		})
	}
}
