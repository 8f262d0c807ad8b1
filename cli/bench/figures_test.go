package bench

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestQuantiles compares with the exact ones of sorted values.
func TestQuantiles(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		h, other := new(Histogram), new(Histogram)
		var all []float64
		for range 1 + rnd.IntN(3000) {
			d := time.Duration(math.Exp(rnd.Float64() * 25))
			all = append(all, float64(d))
			if rnd.IntN(2) == 0 {
				h.Add(d)
			} else {
				other.Add(d)
			}
		}
		h.Merge(other)
		slices.Sort(all)
		if h.Count() != uint64(len(all)) {
			t.Fatalf("count %d of %d", h.Count(), len(all))
		}
		for _, q := range []float64{0, .5, .9, .99, .999, 1} {
			want := all[max(int(math.Ceil(q*float64(len(all)))), 1)-1]
			if got := h.Quantile(q) * 1e3; math.Abs(got-want) > want/subBuckets {
				t.Errorf("quantile %g is %g, want %g", q, got, want)
			}
		}
	}
}

func TestBuckets(t *testing.T) {
	if q := new(Histogram).Quantile(.5); q != 0 {
		t.Errorf("empty: %g", q)
	}
	h := new(Histogram)
	h.Add(-5)
	h.Add(math.MaxInt64)
	if h.Quantile(.5) != 0 || math.Abs(h.Quantile(1)*1e3/math.MaxInt64-1) > 1./subBuckets {
		t.Errorf("ends: %g %g", h.Quantile(.5), h.Quantile(1))
	}
	last := -1
	for v := uint64(0); v < 1<<62; v += v/1000 + 1 {
		i := bucket(v)
		if i < last || i > last+1 {
			t.Fatalf("bucket(%d) is %d after %d", v, i, last)
		}
		last = i
	}
}

// TestSchedule: a message is due exactly when its time has come, and nobody is left out.
func TestSchedule(t *testing.T) {
	for _, rate := range []float64{0.5, 1, 3, 1000, 12345.678, 2e6} {
		s := schedule{rate}
		if s.due(-1) != 0 || s.due(0) != 1 {
			t.Errorf("rate %g: %d due before the start, %d at it", rate, s.due(-1), s.due(0))
		}
		for n := int64(1); n < 5000; n += 7 {
			if at := s.at(n); s.due(at) != n+1 || s.due(at-1) != n {
				t.Fatalf("rate %g: message %d is due at %v; then %d are, and just before %d", rate, n, at, s.due(at), s.due(at-1))
			}
		}
		if got, want := float64(s.due(time.Hour)), rate*3600+1; math.Abs(got-want) > 1 {
			t.Errorf("rate %g: %g in an hour", rate, got)
		}
	}
	const pairs = 7
	seen := map[[2]int]int{}
	for n := range int64(pairs * pairs) {
		from, to := schedule{1}.pairOf(n, pairs, true)
		seen[[2]int{from, to}]++
		if f, to := (schedule{1}).pairOf(n, pairs, false); f != int(n%pairs) || to != f {
			t.Errorf("message %d: %d to %d", n, f, to)
		}
	}
	if len(seen) != pairs*pairs {
		t.Errorf("only %d of %d combinations", len(seen), pairs*pairs)
	}
}

// TestFieldNames: scripts and comparisons rely on the names and their order.
func TestFieldNames(t *testing.T) {
	b, err := json.Marshal(Result{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"","pairs":0,"size":0,"offered_per_s":0,"received":0,"lost":0,"rate_per_s":0,"p50_us":0,"p99_us":0,"p999_us":0,` +
		`"server_cpu_s_per_million":0,"load_cpu_s_per_million":0,"duration_ms":0,"cluster":"","duplicated":0,`
	if !strings.HasPrefix(string(b), want) {
		t.Errorf("got %s", b)
	}
	var r Result
	r.over(0, usage{})
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("nothing measured: %v", err)
	}
	r.over(2_000_000, usage{took: 4 * time.Second, servers: 6 * time.Second, self: time.Second})
	if r.Rate != 500_000 || r.ServerCPU != 3 || r.LoadCPU != .5 || r.DurationMS != 4000 {
		t.Errorf("%+v", r)
	}
}

func TestDefaultWindow(t *testing.T) {
	for _, c := range []struct {
		o    SendOptions
		want int
	}{
		{SendOptions{Pairs: 100, Size: 128}, 327},
		{SendOptions{Pairs: 1, Size: 200}, (recipientBytes + recipientMore) / (200 + frameBytes)},
		{SendOptions{Pairs: 1000, Size: 64000}, (recipientBytes + flightBytes/1000) / (64000 + frameBytes)},
		{SendOptions{Pairs: 100_000, Size: 128}, 1},
		{SendOptions{Pairs: 1, Size: 1 << 20}, 1},
		{SendOptions{Pairs: 100, Size: 128, Ack: wire.AckClient}, 1},
		{SendOptions{Pairs: 100, Size: 128, Ack: wire.AckClient, Rate: 5}, 327},
	} {
		if got := DefaultWindow(c.o); got != c.want {
			t.Errorf("%+v: %d, want %d", c.o, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	good := SendOptions{Pairs: 100, Size: 128, Placement: Across, Duration: time.Second}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for word, spoil := range map[string]func(*SendOptions){
		"pairs":        func(o *SendOptions) { o.Pairs = 0 },
		"with spread":  func(o *SendOptions) { o.Pairs, o.Spread = MaxSpread+1, true },
		"size":         func(o *SendOptions) { o.Size = MinSize - 1 },
		"window is":    func(o *SendOptions) { o.Window = -1 },
		"in flight":    func(o *SendOptions) { o.Pairs, o.Window, o.Size = 1000, 10_000, 1000 },
		"rate":         func(o *SendOptions) { o.Rate = -1 },
		"ack":          func(o *SendOptions) { o.Ack = 9 },
		"placement is": func(o *SendOptions) { o.Placement = "moon" },
		"warm":         func(o *SendOptions) { o.Warm = -1 },
		"duration":     func(o *SendOptions) { o.Duration = 0 },
	} {
		o := good
		spoil(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestPlace(t *testing.T) {
	mix := SendOptions{Placement: Mix}
	seen := map[[2]int]bool{}
	for i := range 9 {
		s, r := mix.place(i, 3)
		seen[[2]int{s, r}] = true
	}
	if len(seen) != 9 {
		t.Errorf("mix reaches %d of 9 combinations", len(seen))
	}
	if s, r := (SendOptions{Placement: Across}).place(5, 3); s != 0 || r != 1 {
		t.Errorf("across: %d %d", s, r)
	}
	if s, r := (SendOptions{Placement: Local}).place(5, 3); s != 0 || r != 0 {
		t.Errorf("local: %d %d", s, r)
	}
}

func TestSources(t *testing.T) {
	seen := map[string]bool{}
	for n := range 60_000 {
		ip := sourceIP(n)
		if !ip.IsLoopback() || ip[15] == 0 || ip[15] == 255 {
			t.Fatalf("source %d is %v", n, ip)
		}
		seen[ip.String()] = true
	}
	if len(seen) != 60_000 {
		t.Errorf("%d addresses", len(seen))
	}
	if sourceDialer("10.0.0.1:80", 1) != nil || sourceDialer("[::1]:80", 1) != nil {
		t.Error("a source of 127.0.0.0/8 cannot reach that")
	}
	if (sourceDialer("ws://127.0.0.1:80/v1/ws", 1) != nil) != manySources {
		t.Error("loopback")
	}
}
