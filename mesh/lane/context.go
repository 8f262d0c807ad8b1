package lane

import (
	"encoding/binary"
	"fmt"

	"imroute/mesh/wire"
)

// Most messages of a lane belong to conversations: the same sender, recipient and epoch as some message shortly before. What
// such messages have in common travels once, in a record that defines a slot, and is left out of those that follow, with
// nothing to parse or to look up.
//
// A slot may be defined anew only when every message that used it is acknowledged, so both sides always agree on what a
// record that is on its way, or kept, means. Slots are part of the state that sequence numbers guard: a resent definition
// is dropped or applied together with its message, and both tables start empty when the peer is another process.

// contextSlots bounds the memory of either side: some hundred bytes a slot. Idle slots are given away.
const contextSlots = 4096

// Context is the sender's handle for messages that agree in Tenant, To, Incarnation, Epoch, From and Instance; all passed
// to Send with one Context must. The zero value is ready. It is not for several goroutines at once.
type Context struct {
	lane *Session
	id   uint64
	slot uint16
	used bool // once: the second message defines
}

// definition is what each message looks at of a sender's slot. What the slot stands for lies apart, or the slots in use would not
// fit into the cache.
type definition struct {
	id   uint64 // 0: free
	last uint64 // newest message that used it
}

// definitions are the sender's slots. Guarded by Session.mu.
type definitions struct {
	slots   []definition
	commons []wire.Forward // by slot
	hand    int
	ids     uint64
}

// place says how a message with context c is to be written. n is its sequence number, acked what the peer acknowledged.
func (d *definitions) place(s *Session, c *Context, m *wire.Forward, n, acked uint64) (kind byte, slot uint16) {
	if c == nil || m.Again != 0 || m.Re != 0 {
		return kindMessage, 0
	}
	if c.lane == s && int(c.slot) < len(d.slots) && d.slots[c.slot].id == c.id && c.id != 0 {
		d.slots[c.slot].last = n
		return kindShort, c.slot
	}
	if c.lane != s {
		*c = Context{lane: s}
	}
	if !c.used {
		c.used = true
		return kindMessage, 0
	}
	at, ok := d.free(n, acked)
	if !ok {
		return kindMessage, 0
	}
	d.ids++
	d.slots[at], d.commons[at] = definition{id: d.ids, last: n}, common(m)
	c.slot, c.id = uint16(at), d.ids
	return kindDefine, c.slot
}

// free finds a slot that may be given away: acknowledged, and not used for as many messages as there are slots.
func (d *definitions) free(n, acked uint64) (int, bool) {
	if len(d.slots) < contextSlots {
		d.slots, d.commons = append(d.slots, definition{}), append(d.commons, wire.Forward{})
		return len(d.slots) - 1, true
	}
	for range 4 {
		at := d.hand
		d.hand = (d.hand + 1) % contextSlots
		if last := d.slots[at].last; last <= acked && last+contextSlots < n {
			return at, true
		}
	}
	return 0, false
}

// common is what messages of one context share, with memory of its own.
func common(m *wire.Forward) wire.Forward {
	c := *m
	c.Payload, c.Memo = nil, nil
	c = *c.Clone()
	c.Counter, c.Ack, c.Ref, c.LeftMS, c.Again, c.Re, c.ReInstance, c.Fault = 0, 0, 0, 0, 0, 0, 0, 0
	return c
}

// Flags of a short record.
const (
	shortAck  = 0x03
	shortRef  = 0x04
	shortLeft = 0x08

	shortFixed = 2 + 1
	maxShort   = shortFixed + 3*binary.MaxVarintLen64
)

// appendMessage writes a record's body of a kind that place chose.
func appendMessage(dst []byte, kind byte, slot uint16, m *wire.Forward) []byte {
	switch kind {
	case kindMessage:
		return wire.AppendForward(dst, m)
	case kindDefine:
		return wire.AppendForward(binary.BigEndian.AppendUint16(dst, slot), m)
	}
	flags := byte(m.Ack) & shortAck
	if m.Ref != 0 {
		flags |= shortRef
	}
	if m.LeftMS != 0 {
		flags |= shortLeft
	}
	dst = append(dst, byte(slot>>8), byte(slot), flags)
	dst = binary.AppendUvarint(dst, m.Counter)
	if m.Ref != 0 {
		dst = binary.AppendUvarint(dst, m.Ref)
	}
	if m.LeftMS != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.LeftMS))
	}
	return append(dst, m.Payload...)
}

// readShort fills in what a short record adds to the common part; m shares memory with body.
func readShort(body []byte, common *wire.Forward, m *wire.Forward) error {
	*m = *common
	flags := body[2]
	rest := body[shortFixed:]
	if flags&^(shortAck|shortRef|shortLeft) != 0 {
		return fmt.Errorf("flags %#x", flags)
	}
	number := func(most uint64) (uint64, bool) {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > most {
			return 0, false
		}
		rest = rest[n:]
		return v, true
	}
	ok := true
	m.Ack = wire.AckMode(flags & shortAck)
	if m.Counter, ok = number(1<<64 - 1); !ok {
		return fmt.Errorf("counter cannot be read")
	}
	if flags&shortRef != 0 {
		if m.Ref, ok = number(1<<64 - 1); !ok {
			return fmt.Errorf("ref cannot be read")
		}
	}
	if flags&shortLeft != 0 {
		v, ok := number(1<<32 - 1)
		if !ok {
			return fmt.Errorf("time left cannot be read")
		}
		m.LeftMS = uint32(v)
	}
	if len(rest) > 0 {
		m.Payload = rest[:len(rest):len(rest)]
	}
	return nil
}

// known is a slot of the receiver.
type known struct {
	set  bool
	m    wire.Forward
	memo wire.Memo
}

// decodeReceived reads a message of any kind into m and applies its definition. Doing so again changes nothing.
func (p *peerState) decodeReceived(kind byte, body []byte, m *wire.Forward) error {
	switch kind {
	case kindMessage:
		return wire.DecodeForward(body, m)
	case kindDefine:
		slot := int(binary.BigEndian.Uint16(body))
		if slot >= contextSlots || slot > len(p.slots) {
			return fmt.Errorf("slot %d is out of place", slot)
		}
		if err := wire.DecodeForward(body[2:], m); err != nil {
			return err
		}
		if slot == len(p.slots) {
			p.slots = append(p.slots, new(known))
		}
		k := p.slots[slot]
		*k = known{set: true, m: common(m)}
		k.m.Memo, m.Memo = &k.memo, &k.memo
		return nil
	}
	slot := int(binary.BigEndian.Uint16(body))
	if slot >= len(p.slots) {
		return fmt.Errorf("slot %d was never defined", slot)
	}
	return readShort(body, &p.slots[slot].m, m)
}

// decodeKept reads one of our own messages back.
func (d *definitions) decodeKept(kind byte, body []byte, m *wire.Forward) error {
	switch kind {
	case kindMessage:
		return wire.DecodeForward(body, m)
	case kindDefine:
		return wire.DecodeForward(body[2:], m)
	}
	return readShort(body, &d.commons[binary.BigEndian.Uint16(body)], m)
}
