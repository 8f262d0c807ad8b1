package bench

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

func goodOverload() *overload {
	v := &overload{
		o:      OverloadOptions{MaxP99: time.Second, MaxGrowth: 10 << 20, NoReader: true, SlowReaders: func(context.Context) (int64, error) { return 1, nil }},
		r:      &OverloadResult{CalmP99: 1000, RSSGrowth: 5 << 20, NoReader: true, NoReaderClosed: true, NoReaderMS: 10_000, SlowReaders: 1},
		codes:  map[string]int64{"rate_limited": 30},
		books:  make([]ledger, 2),
		takers: newFleet(0, "r"), bursters: newFleet(0, "s"), members: newFleet(0, "m"), flooder: newFleet(0, "f"),
	}
	v.sent.Store(100)
	v.answered.Store(100)
	v.delivered.Store(60)
	v.refused.Store(30)
	v.unknown.Store(10)
	v.books[0].unique.Store(40)
	v.books[1].unique.Store(25)
	v.groupSent.Store(2)
	v.groupAnswered.Store(2)
	v.groupCounted.Store(20)
	v.reachedMembers.Store(20)
	return v
}

// Every bound of an overload run that does not hold is a problem, and nothing else is.
func TestOverloadJudge(t *testing.T) {
	r := Result{P99: 50_000}
	v := goodOverload()
	if v.judge(&r); len(r.Problems) > 0 || v.r.Ratio != 50 || v.r.Untold != 0 || v.r.Sent != 100 {
		t.Fatalf("%q, %+v", r.Problems, v.r)
	}
	for want, spoil := range map[string]func(*overload, *Result){
		"not all were told":         func(v *overload, _ *Result) { v.answered.Store(99) },
		"59 delivered, 30 refused":  func(v *overload, _ *Result) { v.delivered.Store(59) },
		"59 arrived, but 60":        func(v *overload, _ *Result) { v.books[0].unique.Store(34) },
		"71 arrived, but 60":        func(v *overload, _ *Result) { v.books[0].unique.Store(46) },
		"arrived twice":             func(v *overload, _ *Result) { v.books[1].duplicated.Store(1) },
		"behind a later one":        func(v *overload, _ *Result) { v.books[1].disordered.Store(1) },
		"the group was never":       func(v *overload, _ *Result) { v.groupAnswered.Store(1) },
		"but got 19 messages":       func(v *overload, _ *Result) { v.reachedMembers.Store(19) },
		"1 session was lost":        func(v *overload, _ *Result) { v.members.moved.Store(1) },
		"grew by 11 MiB":            func(v *overload, _ *Result) { v.r.RSSGrowth = 11 << 20 },
		"p99 was 1.5s":              func(_ *overload, r *Result) { r.P99 = 1.5e6 },
		"not read was not closed":   func(v *overload, _ *Result) { v.r.NoReaderMS = 0 },
		"does not read was not clo": func(v *overload, _ *Result) { v.r.NoReaderClosed = false },
		"2 sessions were closed":    func(v *overload, _ *Result) { v.r.SlowReaders = 2 },
	} {
		v, r := goodOverload(), Result{P99: 50_000}
		spoil(v, &r)
		if v.judge(&r); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], want) {
			t.Errorf("%q, want one with %q", r.Problems, want)
		}
	}
}

func TestOverloadOptions(t *testing.T) {
	good := OverloadOptions{Senders: 2, Messages: 10, Within: time.Second, Pairs: 1, Rate: 1, Size: MinSize, Calm: 1, Duration: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*OverloadOptions){
		"senders": func(o *OverloadOptions) { o.Senders = 0 }, "messages": func(o *OverloadOptions) { o.Messages = 1 },
		"within": func(o *OverloadOptions) { o.Within = 2 * time.Second }, "members": func(o *OverloadOptions) { o.Members = -1 },
		"group-burst": func(o *OverloadOptions) { o.GroupBurst = -1 }, "pairs": func(o *OverloadOptions) { o.Pairs = 0 },
		"rate": func(o *OverloadOptions) { o.Rate = 0 }, "size": func(o *OverloadOptions) { o.Size = 1 }, "calm": func(o *OverloadOptions) { o.Calm = 0 },
	} {
		o := good
		spoil(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

// The client that does not read logs in, and notices whether its connection was closed.
func TestDeaf(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answers, conns := make(chan wire.Frame, 1), make(chan net.Conn, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			var f wire.Frame
			if err := wire.NewFrameReader(nc, 0).Next(&f); err != nil || f.Type != wire.TypeLogin || f.Token != "secret" {
				t.Errorf("%+v, %v", f, err)
			}
			a := <-answers
			_, _ = nc.Write(wire.AppendFrame(nil, &a))
			conns <- nc
		}
	}()
	cfg := client.Config{Client: "deaf", Addrs: []string{"tcp://" + l.Addr().String()}, Token: "secret"}
	answers <- wire.Frame{Type: wire.TypeKick, Code: wire.Busy, Text: "full"}
	if _, err := dialDeaf(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("a refused login: %v", err)
	}
	_ = (<-conns).Close()
	answers <- wire.Frame{Type: wire.TypeWelcome, Epoch: 1, Node: "n1", IdleMS: 1000, MaxPayload: 1}
	d, err := dialDeaf(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if d.ended(20 * time.Millisecond) {
		t.Error("it says that it was closed, and was not")
	}
	nc := <-conns
	_, _ = nc.Write(make([]byte, 1000))
	_ = nc.Close()
	if !d.ended(10 * time.Second) {
		t.Error("it does not notice that it was closed")
	}
	cfg.Addrs = []string{"tls://x:1"}
	if _, err := dialDeaf(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "plain TCP") {
		t.Errorf("over TLS: %v", err)
	}
	_ = l.Close()
	<-done
}

func TestWatchMemory(t *testing.T) {
	self := os.Getpid()
	if rssOf(self) == 0 {
		t.Skip("memory is not known on this system")
	}
	m := watchMemory([]int{self})
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	m.look()
	m.stop()
	m.stop()
	if m.before == 0 || m.growth < 32<<20 || m.peak < m.before+32<<20 || m.after == 0 {
		t.Errorf("before %d, peak %d, after %d, growth %d", m.before, m.peak, m.after, m.growth)
	}
	_ = ballast[len(ballast)-1]
}
