package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// Placements of senders and recipients.
const (
	Across = "across" // senders on the first node, recipients on the second
	Local  = "local"  // all on the first
	Mix    = "mix"    // over all nodes, in every combination
)

// SendOptions is a run of Send.
type SendOptions struct {
	Pairs     int // senders, and as many recipients; 1 to MaxPairs, with Spread to MaxSpread
	Size      int // bytes of a payload, MinSize at least
	Spread    bool
	Window    int     // messages in flight for each recipient (Ack: for each sender); 0: see DefaultWindow
	Rate      float64 // messages a second over all pairs, as an open loop; 0: flat out
	Ack       wire.AckMode
	Placement string        // Across, Local or Mix
	Warm      time.Duration // before it is measured
	Duration  time.Duration // how long it is measured
}

const (
	// MaxPairs bounds the memory of a run.
	MaxPairs = 8000
	// MaxSpread is its bound if each recipient keeps books about each sender.
	MaxSpread = 1000
)

// DefaultWindow is 32,768 messages shared among the pairs, 8,192 at most for one, and not more than what
// a recipient's queue takes; one for acknowledged messages in a closed loop.
func DefaultWindow(o SendOptions) int {
	if o.Ack != wire.AckNone && o.Rate == 0 {
		return 1
	}
	w := min(max(32768/o.Pairs, 1), 8192)
	return max(min(w, (recipientBytes+min(recipientMore, flightBytes/o.Pairs))/(o.Size+frameBytes)), 1)
}

const (
	// recipientBytes is what a recipient's queue on its node takes for sure: the rest would be refused as overloaded.
	recipientBytes = 160 << 10
	// recipientMore is what it takes beyond, of the reserve that all recipients on a node share. The pairs do not ask for all
	// of that: more than flightBytes in flight only wait longer.
	recipientMore = 1 << 20
	flightBytes   = 4 << 20
	// frameBytes is an upper bound of what a message has beside its payload.
	frameBytes = 96
)

// Validate names the option at fault.
func (o SendOptions) Validate() error {
	switch {
	case o.Pairs < 1 || o.Pairs > MaxPairs:
		return fmt.Errorf("pairs is %d: want 1 to %d", o.Pairs, MaxPairs)
	case o.Spread && o.Pairs > MaxSpread:
		return fmt.Errorf("pairs is %d: with spread want 1 to %d", o.Pairs, MaxSpread)
	case o.Size < MinSize || o.Size > wire.MaxPayload:
		return fmt.Errorf("size is %d: want %d (each message is stamped) to %d bytes", o.Size, MinSize, wire.MaxPayload)
	case o.Window < 0 || o.Window > 1<<15:
		return fmt.Errorf("window is %d: want 1 to %d, or 0 for the default", o.Window, 1<<15)
	case int64(max(o.Window, 1))*int64(o.Pairs)*int64(o.Size) > 1<<30:
		return errors.New("window × pairs × size is more than 1 GiB in flight: lower one of them")
	case o.Rate < 0 || o.Rate > 1e8:
		return fmt.Errorf("rate is %g: want 1 to 100000000, or 0 for flat out", o.Rate)
	case o.Ack > wire.AckClient:
		return fmt.Errorf("ack is %d: want none, owner or client", o.Ack)
	case o.Placement != Across && o.Placement != Local && o.Placement != Mix:
		return fmt.Errorf("placement is %q: want %s, %s or %s", o.Placement, Across, Local, Mix)
	case o.Warm < 0:
		return errors.New("warm is negative")
	case o.Duration <= 0:
		return errors.New("duration must be more than 0")
	}
	return nil
}

// place says on which of n nodes sender i and recipient i are.
func (o SendOptions) place(i, n int) (sender, recipient int) {
	switch o.Placement {
	case Across:
		return 0, 1
	case Mix:
		return i % n, i / n % n
	}
	return 0, 0
}

// sendTimeout is how long a message may take.
const sendTimeout = 10 * time.Second

// Send measures many clients messaging each other. If ctx ends while it measures, the Result is of what was measured until
// then, with ctx's cause as the error.
func Send(ctx context.Context, t Target, o SendOptions) (Result, error) {
	r := Result{Name: "imroute-oneway", Pairs: o.Pairs, Size: o.Size, Cluster: t.clusterName()}
	if o.Ack != wire.AckNone {
		r.Name = "imroute-ack-" + o.Ack.String()
	}
	if o.Window == 0 {
		o.Window = DefaultWindow(o)
	}
	if err := o.Validate(); err != nil {
		return r, err
	}
	if o.Placement == Across && len(t.Addrs) < 2 {
		return r, errors.New("placement is across nodes: want the addresses of at least two")
	}
	if err := checkFiles(2 * o.Pairs); err != nil {
		return r, err
	}
	p, err := newParty(ctx, t, o)
	defer p.close()
	if err != nil {
		return r, err
	}
	p.meter.start()
	err = p.phase(ctx, &t, "warm-up", o.Warm)
	if err == nil {
		over := t.measuring(ctx, o.Duration)
		p.meter.measure(&r, t.PIDs, func() { err = p.phase(ctx, &t, "measuring", o.Duration) })
		over()
	}
	stop := startReports(&t, "draining", 0, p.meter.through, nil)
	p.meter.finish(context.WithoutCancel(ctx), &r)
	stop()
	if r.Send != nil {
		r.Send.Ack, r.Send.Placement, r.Send.Transport = o.Ack.String(), o.Placement, t.Transport
	}
	if n := p.senders.moved.Load() + p.recipients.moved.Load(); n > 0 {
		r.problem("%s meanwhile", plural(n, "session had to reconnect", "sessions had to reconnect"))
	}
	return r, err
}

// party is the clients of a Send and their meter.
type party struct {
	meter               *meter
	senders, recipients *fleet
	addrs               []string
}

func newParty(ctx context.Context, t Target, o SendOptions) (*party, error) {
	p := &party{meter: newMeter(o), senders: newFleet(o.Pairs, "s"), recipients: newFleet(o.Pairs, "r"), addrs: t.Addrs}
	m := p.meter
	flight := o.Window * (o.Size + 2*frameBytes)
	err := p.recipients.dial(ctx, &t, time.Minute, func(i int, cfg *client.Config) {
		_, node := o.place(i, len(t.Addrs))
		cfg.Addrs = t.Addrs[node : node+1]
		cfg.OnMessage = func(msg client.Message) { m.received(i, msg.Payload) }
	})
	if err != nil {
		return p, err
	}
	to := make([]string, o.Pairs)
	for i := range to {
		to[i] = p.recipients.id(i)
	}
	err = p.senders.dial(ctx, &t, time.Minute, func(i int, cfg *client.Config) {
		node, _ := o.place(i, len(t.Addrs))
		cfg.Addrs = t.Addrs[node : node+1]
		cfg.Timeout = sendTimeout
		cfg.QueueBytes = max(16<<20, 2*flight)
		cfg.OnRefused = func(r client.Result) { m.refused(i, r.ID.Counter, r.Code) }
	})
	if err != nil {
		return p, err
	}
	m.link = func(from, i int, b []byte, done func(client.Result)) error {
		_, err := p.senders.clients[from].SendAsync(to[i], b, o.Ack, 0, done)
		if errors.Is(err, client.ErrOverloaded) {
			return errFull
		}
		return err
	}
	return p, nil
}

// phase lets time pass, with reports.
func (p *party) phase(ctx context.Context, t *Target, name string, d time.Duration) error {
	defer startReports(t, name, d, p.meter.through, nil)()
	return pause(ctx, d)
}

func (p *party) close() {
	p.senders.close(closeMost)
	p.recipients.close(closeMost)
}
