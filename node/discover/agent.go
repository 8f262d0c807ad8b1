package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// DefaultWait is how long a seeker listens before it founds a cluster.
const DefaultWait = 3 * time.Second

// Conn sends packets to every node of a LAN, the sender included, and receives them; they may be lost, doubled and
// overtake each other. Send and Receive are each called from one goroutine; Close makes both return net.ErrClosed.
type Conn interface {
	Send(packet []byte) error
	// Receive returns a packet's length and whom it came from, for people.
	Receive(buf []byte) (n int, from string, err error)
	Close() error
}

// Config is what an Agent is told.
type Config struct {
	Key    *Key        // required
	Node   wire.NodeID // required
	Name   string      // the node's label
	Dev    bool        // in development mode; nodes of the other mode cannot be joined
	Expect int         // found a cluster only when so many nodes are there; 0: as soon as Wait is over
	Wait   time.Duration
	Conn   Conn // required; the agent closes it
	Logger *slog.Logger
}

// Peer is a member as it announces itself.
type Peer struct {
	Node    wire.NodeID
	Name    string
	Mesh    string // "host:port"
	Cluster uint64
	CAHash  [32]byte
	Dev     bool
}

// Outcome ends a search: either this node founds, or these members, at least one, can be joined.
type Outcome struct {
	Found   bool
	Members []Peer // of one cluster
}

// TwoClustersError says that two clusters live under one name and secret.
type TwoClustersError struct{ A, B Peer }

func (e *TwoClustersError) Error() string {
	return fmt.Sprintf("two clusters announce themselves under one name and secret: %016x (node %s, %s) and %016x (node %s, %s); give one up: stop its nodes, empty their data folders and start them again, they then join the other",
		e.A.Cluster, e.A.Name, e.A.Mesh, e.B.Cluster, e.B.Name, e.B.Mesh)
}

// Agent announces a node and listens to the others. All methods may be called from several goroutines.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	start time.Time
	kick  chan struct{} // capacity 1: announce soon
	news  chan struct{} // capacity 1: something was heard
	ended chan struct{}
	group sync.WaitGroup
	once  sync.Once

	mu       sync.Mutex
	book     *book
	rejected map[string]uint64
	said     map[string]time.Time // what was logged when, so that it is not logged again at once
}

// Open starts an agent that seeks until Become is called.
func Open(cfg Config) (*Agent, error) {
	switch {
	case cfg.Key == nil, cfg.Node == 0, cfg.Conn == nil:
		return nil, errors.New("discover: Key, Node and Conn are required")
	case cfg.Expect < 0 || cfg.Expect > maxPeers:
		return nil, fmt.Errorf("discover: %d nodes expected: want 0 to %d", cfg.Expect, maxPeers)
	}
	if cfg.Wait == 0 {
		cfg.Wait = DefaultWait
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger, start: time.Now(), kick: make(chan struct{}, 1), news: make(chan struct{}, 1), ended: make(chan struct{}),
		rejected: map[string]uint64{}, said: map[string]time.Time{},
	}
	self := Announcement{Node: cfg.Node, Instance: wire.NewID(), Name: cfg.Name, Dev: cfg.Dev, Expect: uint32(cfg.Expect)}
	a.book = newBook(self, cfg.Wait, 0)
	a.group.Go(a.listen)
	a.group.Go(a.announce)
	return a, nil
}

// Close ends the agent and its Conn, and waits for its goroutines. It may be called again.
func (a *Agent) Close() error {
	var err error
	a.once.Do(func() {
		close(a.ended)
		err = a.cfg.Conn.Close()
	})
	a.group.Wait()
	return err
}

func (a *Agent) now() time.Duration { return time.Since(a.start) }

// announceGap is the least time between two announcements, however many ask.
const announceGap = 50 * time.Millisecond

// announce sends this node's announcements until Close.
func (a *Agent) announce() {
	for {
		a.mu.Lock()
		every := a.book.every()
		packet, err := a.cfg.Key.seal(a.book.compose(a.now()))
		a.mu.Unlock()
		if err == nil {
			err = a.cfg.Conn.Send(packet)
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			a.say(slog.LevelWarn, "send", "this node cannot announce itself on the LAN", "err", err)
		}
		// Not all at the same moment.
		timer := time.NewTimer(every - time.Duration(rand.Int64N(int64(every)/4+1)))
		select {
		case <-a.ended:
		case <-timer.C:
		case <-a.kick:
			timer.Stop()
			timer.Reset(announceGap)
			select {
			case <-a.ended:
			case <-timer.C:
			}
		}
		timer.Stop()
		select {
		case <-a.ended:
			return
		default:
		}
	}
}

// listen takes what the others say until Close.
func (a *Agent) listen() {
	buf := make([]byte, MaxPacket+1)
	for {
		n, from, err := a.cfg.Conn.Receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			a.say(slog.LevelWarn, "receive", "this node cannot hear announcements on the LAN", "err", err)
			select {
			case <-a.ended:
				return
			case <-time.After(announceGap):
			}
			continue
		}
		a.take(buf[:n], from)
	}
}

func (a *Agent) take(packet []byte, from string) {
	msg, err := a.cfg.Key.open(packet)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.rejected[err.Error()]++
		if errors.Is(err, errSecret) || errors.Is(err, errVersion) {
			a.book.hearAlien(msg.State, from, err, a.now())
			a.sayLocked(slog.LevelWarn, err.Error(), "an announcement was ignored", "reason", alienError(a.book.alien))
			if msg.State == Seeking && a.book.state != Seeking {
				signal(a.kick) // it shall learn that there is a cluster before it founds one
			}
		}
		return
	}
	answer := a.book.hear(msg, from, a.now())
	for _, p := range a.book.foreign(a.now()) {
		two := &TwoClustersError{Peer{Name: a.cfg.Name, Mesh: a.book.mesh, Cluster: a.book.cluster}, p}
		a.sayLocked(slog.LevelError, fmt.Sprintf("two clusters %016x", p.Cluster), two.Error())
	}
	if answer {
		signal(a.kick)
	}
	signal(a.news)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sayEvery is how long the same complaint is not repeated.
const sayEvery = time.Minute

func (a *Agent) say(level slog.Level, what, text string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sayLocked(level, what, text, args...)
}

func (a *Agent) sayLocked(level slog.Level, what, text string, args ...any) {
	if last, ok := a.said[what]; ok && time.Since(last) < sayEvery || len(a.said) > 100 {
		return
	}
	a.said[what] = time.Now()
	a.log.Log(context.Background(), level, text, args...)
}

// Seek waits until it is clear what this node shall do. After Found the node announces that it founds a cluster, so the
// caller must do that, and then call Become, or Close. Only one goroutine may seek. Errors say what a person can do:
// another secret or version, two clusters, a copied data folder; or ctx ended.
func (a *Agent) Seek(ctx context.Context) (Outcome, error) {
	const tellEvery = 10 * time.Second
	told := time.Now().Add(a.cfg.Wait - tellEvery) // a first word when the usual time has passed
	tick := time.NewTicker(max(a.cfg.Wait/50, 5*time.Millisecond))
	defer tick.Stop()
	for {
		a.mu.Lock()
		v := a.book.decide(a.now())
		a.mu.Unlock()
		switch {
		case v.err != nil:
			return Outcome{}, v.err
		case v.found:
			signal(a.kick) // everybody shall know at once
			return Outcome{Found: true}, nil
		case len(v.members) > 0:
			return Outcome{Members: v.members}, nil
		}
		if time.Since(told) >= tellEvery {
			told = time.Now()
			a.log.Info("waiting for the cluster", "cluster", a.cfg.Key.Cluster(), "for", v.why)
		}
		select {
		case <-ctx.Done():
			return Outcome{}, fmt.Errorf("looking for cluster %q: %w; last: %s", a.cfg.Key.Cluster(), context.Cause(ctx), v.why)
		case <-a.ended:
			return Outcome{}, net.ErrClosed
		case <-tick.C:
		case <-a.news:
		}
	}
}

// Become makes this node announce itself as a member that can be joined at that mesh address.
func (a *Agent) Become(cluster uint64, caHash [32]byte, mesh string) {
	a.mu.Lock()
	a.book.become(cluster, caHash, mesh)
	a.mu.Unlock()
	signal(a.kick)
}

// Members are the other members heard of this node's own cluster.
func (a *Agent) Members() []Peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.book.expire(a.now())
	var out []Peer
	for _, p := range a.book.peers {
		if p.State == Member && p.Cluster == a.book.cluster {
			out = append(out, p.peer())
		}
	}
	return out
}

// Foreign are members heard of other clusters under the same name and secret.
func (a *Agent) Foreign() []Peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.book.foreign(a.now())
}

// Rejected counts the announcements that were not taken, by reason.
func (a *Agent) Rejected() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.rejected)
}
