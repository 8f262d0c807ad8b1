package client

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

// A node that falls silent while an answer is waited for is asked after a second and left two seconds later, and what is
// pending is sent again elsewhere.
func TestSilentNodeIsLeftSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var fc *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		time.Sleep(3 * time.Second)
		start := time.Now()
		results := asyncResults(t, c, wire.AckOwner, 1)
		fc.want(wire.TypeSend)
		if f := <-fc.frames; f.Type != wire.TypePing || time.Since(start) != askAfter {
			t.Fatalf("%s after %s", f.Type, time.Since(start))
		}
		next := n.nodes["b:1"].welcome(2)
		if took := time.Since(start); took < askAfter+answerWithin || took > askAfter+answerWithin+200*time.Millisecond {
			t.Errorf("went elsewhere after %s", took)
		}
		f := next.want(wire.TypeSend)
		next.result(f.ID, wire.Delivered)
		if r := <-results; r.Code != wire.Delivered {
			t.Errorf("result %v", r)
		}
		fc.wantGone()
		shut(t, c)
	})
}

// Messages that time out one after the other do not start the patience anew.
func TestSilentNodeIsLeftUnderSteadyTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		cfg := n.config("a:1", "b:1")
		cfg.Timeout = time.Second
		c := open(t, cfg, func() { n.nodes["a:1"].welcome(1) })
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				_, _ = c.SendAsync("bob", nil, wire.AckOwner, 0, nil) // what becomes of it does not matter
				time.Sleep(100 * time.Millisecond)
			}
		}()
		n.nodes["b:1"].welcome(2)
		if took := time.Since(start); took > askAfter+answerWithin+500*time.Millisecond {
			t.Errorf("went elsewhere after %s", took)
		}
		cancel()
		<-ended
		shut(t, c)
	})
}

// A node that answers pings is not left however long a recipient takes, and is asked once a second at most.
func TestSlowAnswerKeepsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		cfg := n.config("a:1", "b:1")
		cfg.Timeout = 30 * time.Second
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		start := time.Now()
		results := asyncResults(t, c, wire.AckClient, 1)
		id := fc.want(wire.TypeSend).ID
		pings := 0
		for time.Since(start) < 20*time.Second {
			if f := <-fc.frames; f.Type != wire.TypePing {
				t.Fatalf("got %s", f.Type)
			}
			pings++
			time.Sleep(500 * time.Millisecond)
			fc.send(wire.Frame{Type: wire.TypePong})
		}
		if pings > 15 {
			t.Errorf("%d pings in 20s", pings)
		}
		fc.result(id, wire.Delivered)
		if r := <-results; r.Code != wire.Delivered {
			t.Errorf("result %v", r)
		}
		if got := n.dialed(); len(got) != 1 {
			t.Errorf("dialed %v", got)
		}
		// and an idle one is not asked any more
		start = time.Now()
		if f := <-fc.frames; f.Type != wire.TypePing || time.Since(start) < 9*time.Second {
			t.Errorf("%s after %s of nothing to do", f.Type, time.Since(start))
		}
		fc.send(wire.Frame{Type: wire.TypePong})
		shut(t, c)
	})
}

// What was written may take its time on a slow line: the ping is behind it.
func TestSlowLineKeepsTheSession(t *testing.T) {
	for _, seconds := range []int{8, 20} { // 20: longer than a third of the idle time as well
		t.Run(fmt.Sprint(seconds), func(t *testing.T) { slowLine(t, seconds) })
	}
}

func slowLine(t *testing.T, seconds int) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		cfg := n.config("a:1", "b:1")
		cfg.Timeout = 30 * time.Second
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		results := make(chan Result, 1)
		if _, err := c.SendAsync("bob", make([]byte, seconds*slowestWay), wire.AckOwner, 0, func(r Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
		id := fc.want(wire.TypeSend).ID
		time.Sleep(time.Duration(seconds) * time.Second) // the node reads it that slowly
		fc.send(wire.Frame{Type: wire.TypePong})
		fc.result(id, wire.Delivered)
		if r := <-results; r.Code != wire.Delivered {
			t.Errorf("result %v", r)
		}
		if got := n.dialed(); len(got) != 1 {
			t.Errorf("dialed %v", got)
		}
		shut(t, c)
	})
}
