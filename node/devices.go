package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/raftfsm"
)

// sendToUser sends m to one client, or, if To has no "/", to the client of just that id and all devices of that user: to each of
// them as if it had been named itself, with its own place in the order and its own window against repeats. The devices are those
// that the table here knows and, if the sender wants an answer, those that a linearizable read finds beside them (lookAgain); if
// the table knows none, such a read decides (flow.notFound). A session reaches those devices that it may send to by name, and the
// others are none to it: allowedDevices. buf is scratch and is returned.
//
// An id that has no devices costs one more look at the page that the first look-up read, each time that the table has changed
// since the session sent to it last, and no allocation.
func (r *router) sendToUser(o castOrigin, t *tracker, m *wire.Forward, timeout time.Duration, buf []raftfsm.Device) []raftfsm.Device {
	user := m.Kind == wire.ToUser
	m.Kind = wire.ToClient // from here on; what is forwarded names a client
	if !user && t != nil {
		if tr := t.find(m.To); tr != nil && tr.alone == r.table.Applied()+1 {
			r.send(o, t, m, timeout)
			return buf
		}
	}
	if strings.IndexByte(m.To, '/') < 0 {
		applied := r.table.Applied() // before the look: what comes in between makes it look again
		buf = r.table.Devices(wire.ClientID{Tenant: m.Tenant, ID: m.To}, buf)
		buf = allowedDevices(o, buf)
		if len(buf) > 1 || len(buf) == 1 && (user || buf[0].ID != "") {
			r.sendToDevices(o, t, m, timeout, buf, m.Ack != wire.AckNone)
			return buf
		}
		r.send(o, t, m, timeout)
		if t != nil {
			if tr := t.find(m.To); tr != nil {
				tr.alone = applied + 1
			}
		}
		return buf
	}
	r.send(o, t, m, timeout)
	return buf
}

// sendToDevices sends m to each of them; look: and to those that are found by looking again.
func (r *router) sendToDevices(o castOrigin, t *tracker, m *wire.Forward, timeout time.Duration, to []raftfsm.Device, look bool) {
	all := &deviceTally{o: o, ack: m.Ack, open: len(to)}
	if look = look && r.again != nil && r.again.copyOf(all, m, to, timeout); look {
		all.open++
	}
	each := make([]deviceOrigin, len(to))
	for i := range to {
		one := *m
		one.To = to[i].Client.ID // the device's own, or shared with m.To
		each[i] = deviceOrigin{all, one.To}
		if to[i].ID == "" {
			each[i].id = strings.Clone(one.To)
		}
		r.send(&each[i], t, &one, timeout)
	}
	if look {
		r.again.add(all)
	}
}

// deviceTally adds up how a message ended for the devices of a user: it is delivered if any of them got it.
type deviceTally struct {
	o   castOrigin
	ack wire.AckMode

	// for lookAgain only
	m        *wire.Forward // as it went to the user
	known    []string      // clients that it was sent to
	deadline time.Duration

	mu      sync.Mutex
	open    int
	count   uint32
	missed  wire.Missed
	trouble wire.Code
	told    bool // without ack: a refusal
}

// deviceOrigin is one device's part of a message to its user.
type deviceOrigin struct {
	t  *deviceTally
	id string
}

// Result takes the end of the part.
func (d *deviceOrigin) Result(counter uint64, code wire.Code, owner, text string) {
	t := d.t
	if t.ack != wire.AckNone && code != wire.Delivered && code != wire.Offline {
		t.mu.Lock()
		t.missed.Add(d.id)
		t.mu.Unlock()
	}
	t.Result(counter, code, owner, text)
}

// Result takes the end of one of them, or of looking for more.
func (t *deviceTally) Result(counter uint64, code wire.Code, owner, text string) {
	t.mu.Lock()
	if t.ack == wire.AckNone { // nothing is heard of those that go well
		tell := !t.told && code != wire.Offline
		t.told = t.told || tell
		t.mu.Unlock()
		if tell && t.o != nil {
			t.o.Reached(counter, code, 0, wire.Missed{}, text)
		}
		return
	}
	t.open--
	switch {
	case code == wire.Delivered:
		t.count++
	case code == wire.Offline:
	case rankOf(code) > rankOf(t.trouble):
		t.trouble = code
	}
	done := t.open == 0
	t.mu.Unlock()
	if !done || t.o == nil {
		return
	}
	switch {
	case t.count > 0:
		t.o.Reached(counter, wire.Delivered, t.count, t.missed, "")
	case t.trouble != 0:
		t.o.Reached(counter, t.trouble, 0, t.missed, text)
	default:
		t.o.Reached(counter, wire.Offline, 0, wire.Missed{}, "")
	}
}

// lateDevices returns the devices of a user of whom a linearizable read, at index, found devices only.
func (r *router) lateDevices(to wire.ClientID, index uint64, until time.Duration) ([]raftfsm.Device, error) {
	ctx, cancel := context.WithTimeout(r.ctx, until-now())
	defer cancel()
	if err := r.table.WaitApplied(ctx, index); err != nil {
		return nil, err
	}
	return r.table.Devices(to, nil), nil
}

// turnToDevices ends p, of whose recipient a linearizable read found devices only, as a message to one client and sends it to those
// of the devices instead that its sender may send to. Without any of them, and if it was for that id and not for the user's
// devices (an answer to who asked, or a part of what goes to the devices anyway), its recipient was not found.
func (r *router) turnToDevices(p *pending, to []raftfsm.Device) {
	o, whole := p.origin.(castOrigin)
	if p.m.Re == 0 && (whole || p.origin == nil) {
		to = allowedDevices(o, slices.Clone(to)) // others of the flow read it as well
	} else {
		to = nil
	}
	if len(to) == 0 {
		r.notFound(p)
		return
	}
	if p = r.pendings.take(p.ref); p == nil {
		return
	}
	m := p.m
	m.Ack, m.Ref = p.ack, 0
	r.sendToDevices(o, nil, &m, max(p.deadline-now(), time.Millisecond), to, false)
	p.leaveFast()
	if f := p.flow.Load(); f != nil {
		f.ended(p)
	}
}
