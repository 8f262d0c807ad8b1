package node

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"imroute/mesh/wire"
)

func pendingUntil(t *pendings, instance uint64, deadline time.Duration) *pending {
	if !t.reserve(0) {
		return nil
	}
	p := &pending{m: wire.Forward{Instance: instance, Counter: 1}, deadline: deadline}
	t.add(p)
	return p
}

func TestPendings(t *testing.T) {
	ps := newPendings(10 * pendingCost)
	start := 1000 * wheelTick
	var all []*pending
	for i := range uint64(10) {
		all = append(all, pendingUntil(ps, i, start+time.Duration(i)*wheelTick))
	}
	if pendingUntil(ps, 11, start) != nil {
		t.Error("past the limit")
	}
	refs := map[uint64]bool{}
	for _, p := range all {
		if p.ref == 0 || refs[p.ref] || ps.get(p.ref) != p || p.m.Ref != p.ref {
			t.Errorf("ref %d", p.ref)
		}
		refs[p.ref] = true
	}
	p := all[3]
	if !ps.sending(p, 7, 2) || len(ps.sentTo(7, 1)) != 0 || len(ps.sentTo(6, 9)) != 0 {
		t.Error("sent to somebody else")
	}
	if got := ps.sentTo(7, 2); len(got) != 1 || got[0] != p {
		t.Errorf("sent to 7: %v", got)
	}
	ps.refused(p.ref, 6)
	if !p.sent {
		t.Error("a refusal by another node was believed")
	}
	if ps.refused(p.ref, 7); p.sent {
		t.Error("refused, and yet with somebody")
	}
	if ps.take(p.ref) != p || ps.take(p.ref) != nil || ps.get(p.ref) != nil || ps.sending(p, 7, 2) {
		t.Error("taken twice")
	}
	if pendingUntil(ps, 12, start+time.Hour) == nil {
		t.Error("what was taken makes no room")
	}
	if got := ps.expired(start-wheelTick, start-1); len(got) != 0 {
		t.Errorf("%d expired before their time", len(got))
	}
	if got := ps.expired(start-1, start+20*wheelTick); len(got) != 9 {
		t.Errorf("%d expired, want 9", len(got))
	}
	if len(ps.all()) != 1 || ps.count.Load() != 1 || ps.bytes.Load() != pendingCost {
		t.Errorf("%d left, %d counted, %d bytes", len(ps.all()), ps.count.Load(), ps.bytes.Load())
	}
}

// Whenever it was put in and however irregular the ticks, a pending ends at the first tick that is two slots past its
// deadline (or past its coming, if that was later), and never before the deadline.
func TestPendingWheel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	ps := newPendings(1 << 40)
	at := time.Duration(rng.Int64N(int64(time.Hour)))
	last := at
	added := map[*pending]time.Duration{}
	for range 3000 {
		for range rng.IntN(4) {
			// The longest ones go round the wheel several times, the shortest are over before they are in it.
			added[pendingUntil(ps, rng.Uint64(), at-20*wheelTick+time.Duration(rng.Int64N(int64(3*wheelSlots*wheelTick))))] = at
		}
		at += time.Duration(rng.Int64N(int64(40 * wheelTick)))
		for _, p := range ps.expired(last, at) {
			if p.deadline > at {
				t.Fatalf("%v expired at %v", p.deadline, at)
			}
		}
		for _, p := range ps.all() {
			if due := max(p.deadline, added[p]) + 2*wheelTick; due < at {
				t.Fatalf("deadline %v, added at %v, was missed: ticks at %v and %v", p.deadline, added[p], last, at)
			}
		}
		last = at
	}
	at += 4 * wheelSlots * wheelTick
	ps.expired(last, at)
	if n := len(ps.all()); n != 0 || ps.bytes.Load() != 0 {
		t.Errorf("%d left, %d bytes", n, ps.bytes.Load())
	}
}

// TestPendingKeeps: a pending shares nothing with the message it was made of, whatever its size.
func TestPendingKeeps(t *testing.T) {
	for _, size := range []int{0, 1, keepInside - 8, keepInside - 7, keepTogether, keepTogether + 1} {
		for _, tenant := range []string{"", "acme"} {
			buf := []byte(tenant + "bob" + "alice" + strings.Repeat("x", size))
			n := len(tenant)
			m := &wire.Forward{
				Tenant: unsafe.String(&buf[0], n), To: unsafe.String(&buf[n], 3), From: unsafe.String(&buf[n+3], 5), Payload: buf[n+8:], Instance: 7,
			}
			p := keepPending(m)
			clear(buf)
			if p.m.Tenant != tenant || p.m.To != "bob" || p.m.From != "alice" || string(p.m.Payload) != strings.Repeat("x", size) || p.m.Instance != 7 {
				t.Errorf("%d bytes, tenant %q: %q %q %q, %d bytes", size, tenant, p.m.Tenant, p.m.To, p.m.From, len(p.m.Payload))
			}
			if cap(p.m.Payload) > 2*size+64 {
				t.Errorf("%d bytes take %d", size, cap(p.m.Payload))
			}
		}
	}
}
