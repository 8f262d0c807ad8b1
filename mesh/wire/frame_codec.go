package wire

import (
	"encoding/binary"
	"slices"
	"strings"
)

// LengthBytes is the size of the length that stands before each frame on TCP.
const LengthBytes = 4

// Bounds of one encoded field: a key, a head with its argument.
const (
	maxUintField = 1 + 9
	maxTextField = 1 + 5
)

// FrameSize is an upper bound of what AppendFrame appends: its length, header and payload in bytes.
func FrameSize(f *Frame) int { return LengthBytes + headerSize(f) + len(f.Payload) }

func headerSize(f *Frame) int {
	n := 3 + 21*maxUintField + 7*maxTextField + 4*maxTextField +
		len(f.Client) + len(f.To) + len(f.From) + len(f.Node) + len(f.Token) + len(f.Text) + len(f.Tenant)
	for _, a := range f.Addrs {
		n += maxTextField + len(a)
	}
	for _, g := range f.Groups {
		n += maxTextField + len(g)
	}
	for _, id := range f.IDs {
		n += maxTextField + len(id)
	}
	for _, id := range f.MissedIDs {
		n += maxTextField + len(id)
	}
	return n
}

// AppendFrame appends f as it goes over TCP: big-endian length, header, payload. The header is the deterministic CBOR that
// Marshal gives. It allocates only when dst lacks room (FrameSize is enough) and keeps nothing of f. What it wrote is
// readable by others only if the header fits into MaxHeader; Validate checks what could make it longer.
func AppendFrame(dst []byte, f *Frame) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(appendFrameMap(dst, f), f.Payload...)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-LengthBytes))
	return dst
}

// AppendFrameHeader appends everything but the payload, with a length that counts it: write f.Payload right behind, say
// with net.Buffers, to spare copying it.
func AppendFrameHeader(dst []byte, f *Frame) []byte {
	start := len(dst)
	dst = appendFrameMap(append(dst, 0, 0, 0, 0), f)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-LengthBytes+len(f.Payload)))
	return dst
}

// AppendDeliver is AppendFrame of m as the deliver frame that its recipient gets under epoch, without going through a Frame:
// it runs once for each message.
func AppendDeliver(dst []byte, m *Forward, epoch Epoch) []byte {
	start := len(dst)
	if m.Kind != ToClient || m.Re != 0 {
		f := DeliverFrame(m, epoch)
		return AppendFrame(dst, &f)
	}
	dst = append(dst, 0, 0, 0, 0)
	dst = appendHead(dst, majorMap, 1+present(m.From != "")+present(m.Counter != 0)+present(m.Instance != 0)+present(m.Ack != AckNone)+present(epoch != 0))
	dst = append(dst, 0, byte(TypeDeliver))
	dst = appendText(dst, 3, m.From)
	dst = appendUint(dst, 4, m.Counter)
	dst = appendUint(dst, 5, m.Instance)
	if m.Ack != AckNone {
		dst = append(dst, 7, byte(m.Ack))
	}
	dst = appendUint(dst, 10, uint64(epoch))
	dst = append(dst, m.Payload...)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-LengthBytes))
	return dst
}

// DeliverFrame is the deliver frame that m's recipient gets under epoch. It shares memory with m.
func DeliverFrame(m *Forward, epoch Epoch) Frame {
	f := Frame{Type: TypeDeliver, From: m.From, Instance: m.Instance, ID: m.Counter, Epoch: epoch, Ack: m.Ack, Re: m.Re, ReInstance: m.ReInstance, Fault: m.Fault, Payload: m.Payload}
	if m.Kind != ToClient {
		f.Kind, f.To = m.Kind, m.To
	}
	if m.Kind == ToService {
		f.TimeoutMS = m.LeftMS
	}
	return f
}

// DeliverSize is an upper bound of what AppendDeliver appends, in bytes.
func DeliverSize(m *Forward) int {
	n := LengthBytes + 3 + 5*maxUintField + maxTextField + len(m.From) + len(m.Payload)
	if m.Kind != ToClient || m.Re != 0 {
		n += 6*maxUintField + maxTextField + len(m.To)
	}
	return n
}

func appendFrameMap(dst []byte, f *Frame) []byte {
	dst = appendFrameHead(dst, f, f.Epoch != 0)
	return appendFrameTail(appendUint(dst, 10, uint64(f.Epoch)), f)
}

// appendFrameHead writes what stands before the epoch.
func appendFrameHead(dst []byte, f *Frame, epoch bool) []byte {
	n := 1 + present(f.Client != "") + present(f.To != "") + present(f.From != "") + present(f.ID != 0) +
		present(f.Instance != 0) + present(f.Attempt != 0) + present(f.Ack != 0) + present(f.TimeoutMS != 0) +
		present(f.Code != 0) + present(epoch) + present(f.Node != "") + present(f.Token != "") +
		present(f.IdleMS != 0) + present(len(f.Addrs) != 0) + present(f.RetryMS != 0) + present(f.Text != "") +
		present(f.MaxPayload != 0) + present(f.Version != 0) + present(f.Tenant != "") +
		present(f.Kind != 0) + present(len(f.Groups) != 0) + present(f.Count != 0) +
		present(f.Re != 0) + present(f.ReInstance != 0) + present(f.Fault != 0) + present(len(f.IDs) != 0) + present(f.Online != 0) + present(f.Since != 0) +
		present(f.Missed != 0) + present(len(f.MissedIDs) != 0)
	dst = appendHead(dst, majorMap, n)
	dst = appendHead(append(dst, 0), majorUint, uint64(f.Type))
	dst = appendText(dst, 1, f.Client)
	dst = appendText(dst, 2, f.To)
	dst = appendText(dst, 3, f.From)
	dst = appendUint(dst, 4, f.ID)
	dst = appendUint(dst, 5, f.Instance)
	dst = appendUint(dst, 6, f.Attempt)
	dst = appendUint(dst, 7, uint64(f.Ack))
	dst = appendUint(dst, 8, uint64(f.TimeoutMS))
	return appendUint(dst, 9, uint64(f.Code))
}

// appendFrameTail writes what stands behind the epoch, without the payload.
func appendFrameTail(dst []byte, f *Frame) []byte {
	dst = appendText(dst, 11, f.Node)
	dst = appendText(dst, 12, f.Token)
	dst = appendUint(dst, 13, uint64(f.IdleMS))
	dst = appendTexts(dst, 14, f.Addrs)
	dst = appendUint(dst, 15, uint64(f.RetryMS))
	dst = appendText(dst, 16, f.Text)
	dst = appendUint(dst, 17, uint64(f.MaxPayload))
	dst = appendUint(dst, 18, uint64(f.Version))
	dst = appendText(dst, 19, f.Tenant)
	dst = appendUint(dst, 20, uint64(f.Kind))
	dst = appendTexts(dst, 21, f.Groups)
	dst = appendUint(dst, 22, uint64(f.Count))
	dst = appendUint(dst, 23, f.Re)
	dst = appendUint(dst, 24, f.ReInstance)
	dst = appendUint(dst, 25, uint64(f.Fault))
	dst = appendTexts(dst, 26, f.IDs)
	dst = appendUint(dst, 27, uint64(f.Online))
	dst = appendUint(dst, 28, f.Since)
	dst = appendUint(dst, 29, uint64(f.Missed))
	return appendTexts(dst, 30, f.MissedIDs)
}

// DecodeFrame reads what a frame's length counted: header, then payload. f's strings and its Payload share memory with
// body and are valid as long as that is left alone; Clone what is kept. Only the lists of texts allocate. After an error f is zero.
//
// Whatever it accepts, Unmarshal accepts with the same result. It is stricter in that it refuses a header longer than
// MaxHeader (nor does it look further), a header that is null, keys that are no unsigned integers, unknown keys above 63
// that do not rise, numbers written as simple values, and more than 64 entries in a list. Numbers need not be in their shortest form.
// The size of the payload is for the caller to check.
func DecodeFrame(body []byte, f *Frame) error {
	*f = Frame{}
	n, err := decodeFrameMap(body, f)
	if err != nil {
		*f = Frame{}
		return err
	}
	if n < len(body) {
		f.Payload = body[n:len(body):len(body)]
	}
	return nil
}

func decodeFrameMap(body []byte, f *Frame) (int, error) {
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
		case 0:
			v, err = c.uint(0xff)
			f.Type = Type(v)
		case 1:
			f.Client, err = c.text()
		case 2:
			f.To, err = c.text()
		case 3:
			f.From, err = c.text()
		case 4:
			f.ID, err = c.uint(1<<64 - 1)
		case 5:
			f.Instance, err = c.uint(1<<64 - 1)
		case 6:
			f.Attempt, err = c.uint(1<<64 - 1)
		case 7:
			v, err = c.uint(0xff)
			f.Ack = AckMode(v)
		case 8:
			v, err = c.uint(0xffffffff)
			f.TimeoutMS = uint32(v)
		case 9:
			v, err = c.uint(0xffff)
			f.Code = Code(v)
		case 10:
			v, err = c.uint(1<<64 - 1)
			f.Epoch = Epoch(v)
		case 11:
			f.Node, err = c.text()
		case 12:
			f.Token, err = c.text()
		case 13:
			v, err = c.uint(0xffffffff)
			f.IdleMS = uint32(v)
		case 14:
			f.Addrs, err = c.texts()
		case 15:
			v, err = c.uint(0xffffffff)
			f.RetryMS = uint32(v)
		case 16:
			f.Text, err = c.text()
		case 17:
			v, err = c.uint(0xffffffff)
			f.MaxPayload = uint32(v)
		case 18:
			v, err = c.uint(0xffffffff)
			f.Version = uint32(v)
		case 19:
			f.Tenant, err = c.text()
		case 20:
			v, err = c.uint(0xff)
			f.Kind = Kind(v)
		case 21:
			f.Groups, err = c.texts()
		case 22:
			v, err = c.uint(0xffffffff)
			f.Count = uint32(v)
		case 23:
			f.Re, err = c.uint(1<<64 - 1)
		case 24:
			f.ReInstance, err = c.uint(1<<64 - 1)
		case 25:
			v, err = c.uint(0xffffffff)
			f.Fault = uint32(v)
		case 26:
			f.IDs, err = c.texts()
		case 27:
			v, err = c.uint(0xff)
			f.Online = Flag(v)
		case 28:
			f.Since, err = c.uint(1<<64 - 1)
		case 29:
			v, err = c.uint(0xffffffff)
			f.Missed = uint32(v)
		case 30:
			f.MissedIDs, err = c.texts()
		default:
			err = c.skip(1)
		}
		if err != nil {
			return 0, err
		}
	}
	return c.off, nil
}

// Clone copies f so that it shares no memory with what it was decoded from.
func (f *Frame) Clone() *Frame {
	g := *f
	g.Client, g.To, g.From = strings.Clone(f.Client), strings.Clone(f.To), strings.Clone(f.From)
	g.Node, g.Token = strings.Clone(f.Node), strings.Clone(f.Token)
	g.Text, g.Tenant = strings.Clone(f.Text), strings.Clone(f.Tenant)
	g.Addrs = slices.Clone(f.Addrs)
	for i, a := range g.Addrs {
		g.Addrs[i] = strings.Clone(a)
	}
	g.Groups = slices.Clone(f.Groups)
	for i, name := range g.Groups {
		g.Groups[i] = strings.Clone(name)
	}
	g.IDs = slices.Clone(f.IDs)
	for i, id := range g.IDs {
		g.IDs[i] = strings.Clone(id)
	}
	g.MissedIDs = slices.Clone(f.MissedIDs)
	for i, id := range g.MissedIDs {
		g.MissedIDs[i] = strings.Clone(id)
	}
	g.Payload = slices.Clone(f.Payload)
	return &g
}
