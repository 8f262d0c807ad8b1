package node

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// BenchmarkForward is what a message costs on its way from a client of one node to a client of another: gateway, router and
// lane of the sender's node, lane, router, session and writer of the owner's, and with an acknowledgement all the way back.
// The clients only copy bytes, so the allocations reported are those of both nodes together; in bursts, where a packet carries
// several, more than two for each node are an error. A message alone pays for its packets as well, which cost QUIC about three
// allocations each on either side.
//
//	go test -run '^$' -bench Forward ./node
func BenchmarkForward(b *testing.B) {
	c, nodes := benchCluster(b)
	for _, ack := range []wire.AckMode{wire.AckNone, wire.AckClient} {
		for _, burst := range []int{32, 1} {
			b.Run(fmt.Sprintf("ack=%d/burst=%d", ack, burst), func(b *testing.B) {
				benchmarkForward(b, c, nodes, ack, burst)
			})
		}
	}
}

const (
	forwardPairs   = 8
	forwardPayload = 128
	allocationsMax = 2 * 2.0 // of a message, on both nodes together
)

func benchmarkForward(b *testing.B, c *cluster, nodes []*Node, ack wire.AckMode, burst int) {
	var pairs []*forwardPair
	run := uint64(wire.NewID())
	for i := range forwardPairs {
		from, to := fmt.Sprintf("f%x-s%d", run, i), fmt.Sprintf("f%x-r%d", run, i)
		p := &forwardPair{
			ack: ack, burst: burst, to: to, payload: make([]byte, forwardPayload), took: make(chan error, 1),
			sender: rawLogin(b, nodes[0], from, run+1, 1), recipient: rawLogin(b, nodes[1], to, run+2, 1),
		}
		p.sender.want(wire.TypeWelcome)
		p.recipient.want(wire.TypeWelcome)
		for _, r := range []*raw{p.sender, p.recipient} {
			_ = r.conn.SetDeadline(time.Now().Add(4 * time.Minute))
		}
		pairs = append(pairs, p)
	}
	for _, p := range pairs { // slots of the lane, buffers, the route at the sender's node
		for range 4 {
			if err := p.round(); err != nil {
				b.Fatal(err)
			}
		}
	}
	rounds := max(b.N/(burst*forwardPairs), 1)
	messages := rounds * burst * forwardPairs
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	var driving sync.WaitGroup
	for _, p := range pairs {
		driving.Go(func() {
			for range rounds {
				if err := p.round(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	driving.Wait()
	b.StopTimer()
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / float64(messages)
	b.ReportMetric(each, "allocs/message")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(messages), "B/message")
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
	if messages >= 10_000 && burst > 1 && each > allocationsMax {
		b.Errorf("%.2f allocations a message on both nodes, at most %g are wanted", each, allocationsMax)
	}
	for _, p := range pairs {
		_ = p.sender.conn.Close()
		_ = p.recipient.conn.Close()
	}
}

// forwardPair is one sender and its recipient, who do nothing that costs an allocation.
type forwardPair struct {
	ack               wire.AckMode
	burst             int
	to                string
	payload           []byte
	sender, recipient *raw
	counter           uint64
	out, back         []byte
	took              chan error
}

// round sends a burst and waits until all of it arrived, and was acknowledged if that is wanted.
func (p *forwardPair) round() error {
	go p.receive()
	p.out = p.out[:0]
	for range p.burst {
		p.counter++
		p.out = wire.AppendFrame(p.out, &wire.Frame{Type: wire.TypeSend, ID: p.counter, To: p.to, Ack: p.ack, Payload: p.payload})
	}
	if _, err := p.sender.conn.Write(p.out); err != nil {
		return err
	}
	if err := <-p.took; err != nil || p.ack == wire.AckNone {
		return err
	}
	var f wire.Frame
	for got := 0; got < p.burst; {
		if err := p.sender.in.Next(&f); err != nil {
			return err
		}
		if f.Type == wire.TypeResult {
			if f.Code != wire.Delivered {
				return fmt.Errorf("message %d to %s: %s %s", f.ID, p.to, f.Code, f.Text)
			}
			got++
		}
	}
	return nil
}

// receive takes a burst.
func (p *forwardPair) receive() {
	var f wire.Frame
	p.back = p.back[:0]
	for got := 0; got < p.burst; {
		if err := p.recipient.in.Next(&f); err != nil {
			p.took <- fmt.Errorf("%s: %w", p.to, err)
			return
		}
		if f.Type != wire.TypeDeliver {
			continue
		}
		if len(f.Payload) != len(p.payload) {
			p.took <- fmt.Errorf("%s got %d bytes", p.to, len(f.Payload))
			return
		}
		got++
		if p.ack != wire.AckNone {
			p.back = wire.AppendFrame(p.back, &wire.Frame{Type: wire.TypeAck, ID: f.ID, Instance: f.Instance})
		}
	}
	var err error
	if len(p.back) > 0 {
		_, err = p.recipient.conn.Write(p.back)
	}
	p.took <- err
}
