package wire

import (
	"slices"
	"strings"
)

// ForwardSize is an upper bound of what AppendForward appends, in bytes.
func ForwardSize(m *Forward) int {
	return 1 + 12*maxUintField + 3*maxTextField + len(m.Tenant) + len(m.To) + len(m.From) + len(m.Payload)
}

// AppendForward appends m's header, the deterministic CBOR that Marshal gives, and its payload. It writes no length: the
// lane frames it. It allocates only when dst lacks room and keeps nothing of m.
func AppendForward(dst []byte, m *Forward) []byte {
	n := 5 + present(m.Tenant != "") + present(m.From != "") + present(m.Ack != 0) + present(m.Ref != 0) + present(m.LeftMS != 0) + present(m.Kind != 0) +
		present(m.Re != 0) + present(m.ReInstance != 0) + present(m.Fault != 0) + present(m.Again != 0)
	dst = appendHead(dst, majorMap, n)
	dst = appendText(dst, 1, m.Tenant)
	dst = append(appendHead(append(dst, 2), majorText, uint64(len(m.To))), m.To...)
	dst = appendHead(append(dst, 3), majorUint, uint64(m.Incarnation))
	dst = appendHead(append(dst, 4), majorUint, uint64(m.Epoch))
	dst = appendText(dst, 5, m.From)
	dst = appendHead(append(dst, 6), majorUint, m.Instance)
	dst = appendHead(append(dst, 7), majorUint, m.Counter)
	dst = appendUint(dst, 8, uint64(m.Ack))
	dst = appendUint(dst, 9, m.Ref)
	dst = appendUint(dst, 10, uint64(m.LeftMS))
	dst = appendUint(dst, 11, uint64(m.Kind))
	dst = appendUint(dst, 12, m.Re)
	dst = appendUint(dst, 13, m.ReInstance)
	dst = appendUint(dst, 14, uint64(m.Fault))
	dst = appendUint(dst, 15, uint64(m.Again))
	return append(dst, m.Payload...)
}

// DecodeForward reads header and payload, by the rules of DecodeFrame: m shares memory with body, nothing is allocated,
// and after an error m is zero.
func DecodeForward(body []byte, m *Forward) error {
	*m = Forward{}
	n, err := decodeForwardMap(body, m)
	if err != nil {
		*m = Forward{}
		return err
	}
	if n < len(body) {
		m.Payload = body[n:len(body):len(body)]
	}
	return nil
}

func decodeForwardMap(body []byte, m *Forward) (int, error) {
	c := newCursor(body)
	pairs, err := c.mapHeader()
	if err != nil {
		return 0, err
	}
	var ks keys
	for range pairs {
		k, err := c.key(&ks)
		if err != nil {
			return 0, err
		}
		var v uint64
		switch k {
		case 1:
			m.Tenant, err = c.text()
		case 2:
			m.To, err = c.text()
		case 3:
			v, err = c.uint(1<<64 - 1)
			m.Incarnation = Incarnation(v)
		case 4:
			v, err = c.uint(1<<64 - 1)
			m.Epoch = Epoch(v)
		case 5:
			m.From, err = c.text()
		case 6:
			m.Instance, err = c.uint(1<<64 - 1)
		case 7:
			m.Counter, err = c.uint(1<<64 - 1)
		case 8:
			v, err = c.uint(0xff)
			m.Ack = AckMode(v)
		case 9:
			m.Ref, err = c.uint(1<<64 - 1)
		case 10:
			v, err = c.uint(0xffffffff)
			m.LeftMS = uint32(v)
		case 11:
			v, err = c.uint(0xff)
			m.Kind = Kind(v)
		case 12:
			m.Re, err = c.uint(1<<64 - 1)
		case 13:
			m.ReInstance, err = c.uint(1<<64 - 1)
		case 14:
			v, err = c.uint(0xffffffff)
			m.Fault = uint32(v)
		case 15:
			v, err = c.uint(0xff)
			m.Again = uint8(v)
		default:
			err = c.skip(1)
		}
		if err != nil {
			return 0, err
		}
	}
	return c.off, nil
}

// Clone copies m so that it shares no memory with what it was decoded from.
func (m *Forward) Clone() *Forward {
	c := *m
	c.Tenant, c.To, c.From = strings.Clone(m.Tenant), strings.Clone(m.To), strings.Clone(m.From)
	c.Payload = slices.Clone(m.Payload)
	return &c
}

// MaxStatusSize is the most that AppendStatus appends for a status without MissedIDs, in bytes; see StatusSize.
const MaxStatusSize = 1 + 5*maxUintField

// StatusSize is an upper bound of what AppendStatus appends, in bytes.
func StatusSize(s *Status) int {
	n := MaxStatusSize
	if len(s.MissedIDs) > 0 {
		n += maxTextField
	}
	for _, id := range s.MissedIDs {
		n += maxTextField + len(id)
	}
	return n
}

// AppendStatus appends s as the deterministic CBOR that Marshal gives.
func AppendStatus(dst []byte, s *Status) []byte {
	dst = appendHead(dst, majorMap, 1+present(s.Seq != 0)+present(s.Ref != 0)+present(s.Index != 0)+present(s.Missed != 0)+present(len(s.MissedIDs) != 0))
	dst = appendUint(dst, 1, s.Seq)
	dst = appendUint(dst, 2, s.Ref)
	dst = appendHead(append(dst, 3), majorUint, uint64(s.Code))
	dst = appendUint(dst, 4, s.Index)
	dst = appendUint(dst, 5, uint64(s.Missed))
	return appendTexts(dst, 6, s.MissedIDs)
}

// DecodeStatus reads exactly one status, by the rules of DecodeFrame: its strings share memory with body. After an error s is
// zero.
func DecodeStatus(body []byte, s *Status) error {
	*s = Status{}
	n, err := decodeStatusMap(body, s)
	if err == nil && n < len(body) {
		err = errSyntax
	}
	if err != nil {
		*s = Status{}
	}
	return err
}

func decodeStatusMap(body []byte, s *Status) (int, error) {
	c := newCursor(body)
	pairs, err := c.mapHeader()
	if err != nil {
		return 0, err
	}
	var ks keys
	for range pairs {
		k, err := c.key(&ks)
		if err != nil {
			return 0, err
		}
		var v uint64
		switch k {
		case 1:
			s.Seq, err = c.uint(1<<64 - 1)
		case 2:
			s.Ref, err = c.uint(1<<64 - 1)
		case 3:
			v, err = c.uint(0xffff)
			s.Code = Code(v)
		case 4:
			s.Index, err = c.uint(1<<64 - 1)
		case 5:
			v, err = c.uint(0xffffffff)
			s.Missed = uint32(v)
		case 6:
			s.MissedIDs, err = c.texts()
		default:
			err = c.skip(1)
		}
		if err != nil {
			return 0, err
		}
	}
	return c.off, nil
}
