package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// standIn is a member of a group without a connection: a process may not have as many as the tests want members.
type standIn struct {
	id  wire.ClientID
	got atomic.Int64
}

func (m *standIn) Client() wire.ClientID                 { return m.id }
func (m *standIn) removed(wire.Topic, wire.Code, string) {}
func (m *standIn) DeliverCast(c *gateway.Cast) wire.Code { m.got.Add(1); return wire.Delivered }

// crowd makes n stand-ins members of a group, spread over nodes, and waits until the cluster knows.
func crowd(t testing.TB, topic wire.Topic, n int, nodes ...*Node) []*standIn {
	t.Helper()
	all := make([]*standIn, n)
	var wg sync.WaitGroup
	wg.Add(n)
	for i := range all {
		all[i] = &standIn{id: wire.ClientID{ID: fmt.Sprintf("stand-in-%d", i)}}
		nodes[i%len(nodes)].present.Load().topics.join(topic, all[i], func(err *wire.Error) {
			if err != nil {
				t.Errorf("member %d: %v", i, err)
			}
			wg.Done()
		})
	}
	wg.Wait()
	return all
}

// TestTenThousandMembers: a group of 10,000 on three nodes, some hundred of them over real connections. Each message goes
// once to each node and reaches everybody, in order.
func TestTenThousandMembers(t *testing.T) {
	c := newCluster(t)
	n1, n2, n3 := c.three()
	nodes := []*Node{n1, n2, n3}
	const members, real, messages = 10_000, 300, 20
	topic := wire.Topic{Kind: wire.TopicGroup, Name: "everybody"}
	var raws []*raw
	for i := range real {
		r := rawLogin(t, nodes[i%3], fmt.Sprintf("real-%d", i), uint64(i+1), 1)
		r.write(&wire.Frame{Type: wire.TypeJoin, To: topic.Name, ID: 1})
		raws = append(raws, r)
	}
	for _, r := range raws {
		if f := r.want(wire.TypeResult); f.Code != wire.Joined {
			t.Fatalf("%+v", f)
		}
	}
	rest := crowd(t, topic, members-real, nodes...)
	alice := c.dial("alice", n1)
	payload := make([]byte, 1024)
	before := n1.router.casts.forwarded.Load()
	results := make(chan client.Result, messages)
	for i := range messages {
		copy(payload, fmt.Sprintf("%04d", i))
		if _, err := alice.SendToAsync(client.ToGroup(topic.Name), payload, wire.AckOwner, patience, func(r client.Result) { results <- r }); err != nil {
			t.Fatal(err)
		}
	}
	for range messages {
		if r := <-results; r.Code != wire.Delivered || r.Count != members {
			t.Errorf("%v %s, %d reached, want %d", r.Code, r.Text, r.Count, members)
		}
	}
	if got := n1.router.casts.forwarded.Load() - before; got != 2*messages {
		t.Errorf("%d forwarded, want %d", got, 2*messages)
	}
	for _, r := range raws {
		for i := range messages {
			if f := r.want(wire.TypeDeliver); string(f.Payload[:4]) != fmt.Sprintf("%04d", i) || f.To != topic.Name || f.Kind != wire.ToGroup {
				t.Fatalf("message %d is %q to %v %s", i, f.Payload[:4], f.Kind, f.To)
			}
		}
	}
	for _, m := range rest {
		if got := m.got.Load(); got != messages {
			t.Fatalf("%v got %d of %d", m.id, got, messages)
		}
	}
	for _, n := range nodes {
		if q := n.router.casts.fan.queued(); q != 0 {
			t.Errorf("%s: %d bytes are left in the fan-out", n.Name(), q)
		}
	}
}

// BenchmarkFanout is the fan-out of one node alone, to 100,000 members.
func BenchmarkFanout(b *testing.B) {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	r := &router{ctx: ctx, pendings: newPendings(64 << 20)}
	g, err := gateway.New(gateway.Config{TCP: "127.0.0.1:0", DevMode: true, Backend: clients{}})
	if err != nil {
		b.Fatal(err)
	}
	l := &life{incarnation: 1, claims: newClaims[session]()}
	l.topics = newTopics(func(op operation) { op.told(raftfsm.OpResult{Code: raftfsm.OpOK}, nil) }, func() bool { return true })
	f := &fanout{r: r, by: map[fanKey]*fanQueue{}, workers: 2, cast: g.NewCast, expired: g.Expired}
	topic := wire.Topic{Kind: wire.TopicGroup, Name: "everybody"}
	for i := range 100_000 {
		l.topics.join(topic, &standIn{id: wire.ClientID{ID: fmt.Sprint(i)}}, func(*wire.Error) {})
	}
	m := wire.Forward{From: "alice", To: topic.Name, Kind: wire.ToGroup, Incarnation: 1, Instance: 9, Ack: wire.AckOwner, LeftMS: 60000, Payload: make([]byte, 1024)}
	done := make(chan uint32, 1)
	b.ReportAllocs()
	for b.Loop() {
		m.Counter++
		m.Ref = m.Counter
		if code := f.take(l, &m, func(_ uint64, _ wire.Code, n uint32, _ wire.Missed) { done <- n }); code != 0 {
			b.Fatal(code)
		}
		if n := <-done; n != 100_000 {
			b.Fatalf("%d reached", n)
		}
	}
	r.wg.Wait()
}

// BenchmarkGroup100000 is a message to a group of 100,000 on three nodes, from the sender's connection until he is told how many
// were reached: agreement, linearizable read, mesh and fan-out, 300 members over real connections, the others without.
//
//	go test -run '^$' -bench Group100000 ./node
func BenchmarkGroup100000(b *testing.B) {
	c, nodes := benchCluster(b)
	const members, real = 100_000, 300
	topic := wire.Topic{Kind: wire.TopicGroup, Name: fmt.Sprintf("everybody-%08x", wire.NewID())}
	var raws []*raw
	for i := range real {
		r := rawLogin(b, nodes[i%len(nodes)], fmt.Sprintf("real-%d", i), uint64(i+1), 1)
		_ = r.conn.SetDeadline(time.Now().Add(4 * time.Minute))
		r.write(&wire.Frame{Type: wire.TypeJoin, To: topic.Name, ID: 1})
		raws = append(raws, r)
	}
	for _, r := range raws {
		if f := r.want(wire.TypeResult); f.Code != wire.Joined {
			b.Fatalf("%+v", f)
		}
	}
	rest := crowd(b, topic, members-real, nodes...)
	alice := c.dial("alice", nodes[0])
	payload := make([]byte, 128)
	sent := int64(0)
	for b.Loop() {
		sent++
		copy(payload, fmt.Sprintf("%08d", sent))
		r, err := alice.SendTo(c.ctx, client.ToGroup(topic.Name), payload, client.WithAck(wire.AckOwner), client.WithTimeout(patience))
		if err != nil || r.Code != wire.Delivered || r.Count != members {
			b.Fatalf("%v %v, %d reached, want %d", r.Code, err, r.Count, members)
		}
	}
	b.ReportMetric(float64(members)*float64(sent)/b.Elapsed().Seconds(), "copies/s")
	for _, r := range raws {
		for i := range sent {
			if f := r.want(wire.TypeDeliver); string(f.Payload[:8]) != fmt.Sprintf("%08d", i+1) {
				b.Fatalf("message %d is %q", i+1, f.Payload[:8])
			}
		}
	}
	for _, m := range rest {
		if got := m.got.Load(); got != sent {
			b.Fatalf("%v got %d of %d", m.id, got, sent)
		}
	}
	alice.hangUp()
}
