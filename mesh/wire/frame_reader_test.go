package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"
	"time"
)

// pieces hands out its bytes in random portions.
type pieces struct {
	b   []byte
	rnd *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:1+p.rnd.IntN(len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

func TestFrameReader(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var want []Frame
	var all []byte
	for i := range 300 {
		f := smallFrames()[i%5]
		f.ID = uint64(i) + 1
		if size := []int{0, 3, 200, 20_000, 300_000}[rnd.IntN(5)]; size > 0 && (size < 1000 || i%20 == 0) {
			f.Payload = bytes.Repeat([]byte{byte(i)}, size)
		}
		want = append(want, f)
		all = AppendFrame(all, &f)
	}
	for name, r := range map[string]io.Reader{
		"random pieces": &pieces{all, rnd},
		"whole":         bytes.NewReader(all),
		"half":          iotest.HalfReader(bytes.NewReader(all)),
		"with EOF":      iotest.DataErrReader(bytes.NewReader(all)),
		"lazy":          lazy{bytes.NewReader(all)},
	} {
		fr := NewFrameReader(r, 0)
		for i := range want {
			var f Frame
			if err := fr.Next(&f); err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
			if !reflect.DeepEqual(normal(&f), normal(&want[i])) {
				t.Fatalf("%s: frame %d differs", name, i)
			}
		}
		if err := fr.Next(new(Frame)); err != io.EOF {
			t.Fatalf("%s: at the end: %v", name, err)
		}
		if fr.buf != nil {
			t.Fatalf("%s: an idle reader holds a buffer", name)
		}
	}
}

type lazy struct{ io.Reader }

func (l lazy) ReadLazily(size int) (*Buffer, int, error) {
	b := GetBuffer(size)
	n, err := l.Read(b.B)
	if n > 0 {
		return b, n, nil
	}
	b.Release()
	return nil, 0, err
}

func TestFrameReaderRefuses(t *testing.T) {
	ping := AppendFrame(nil, &Frame{Type: TypePing})
	length := func(n uint32, rest ...byte) []byte { return append(binary.BigEndian.AppendUint32(nil, n), rest...) }
	big := AppendFrame(nil, &Frame{Type: TypeSend, Payload: make([]byte, 1001)})
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"length over limit":  {length(MaxHeader + 1001), ErrTooLarge},
		"length 4 GiB":       {length(1<<32 - 1), ErrTooLarge},
		"payload over limit": {big, ErrTooLarge},
		"empty":              {length(0), ErrMalformed},
		"not CBOR":           {length(2, 0xff, 0xff), ErrMalformed},
		"cut in length":      {[]byte{0, 0}, io.ErrUnexpectedEOF},
		"cut in header":      {ping[:len(ping)-1], io.ErrUnexpectedEOF},
	} {
		fr := NewFrameReader(bytes.NewReader(append(bytes.Clone(ping), c.in...)), 1000)
		var f Frame
		if err := fr.Next(&f); err != nil || f.Type != TypePing {
			t.Fatalf("%s: good frame before: %v", name, err)
		}
		for range 2 {
			if err := fr.Next(&f); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if c.want == io.ErrUnexpectedEOF {
				break
			}
		}
		fr.Close()
	}
}

// A length is only a claim: memory follows what was received.
func TestFrameReaderBelievesOnlyBytes(t *testing.T) {
	in := append(binary.BigEndian.AppendUint32(nil, MaxPayload), make([]byte, 20<<10)...)
	fr := NewFrameReader(bytes.NewReader(in), 0)
	if err := fr.Next(new(Frame)); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if n := len(fr.buf.B); n > growFactor*2*len(in) {
		t.Fatalf("%d bytes of buffer for %d received", n, len(in))
	}
	fr.Close()
}

// A deadline is not the end: the reader goes on where it was.
func TestFrameReaderGoesOnAfterTimeout(t *testing.T) {
	in := AppendFrame(nil, &Frame{Type: TypeSend, To: "x", ID: 1})
	r, w := io.Pipe()
	fr := NewFrameReader(iotest.TimeoutReader(r), 0)
	go func() {
		_, _ = w.Write(in[:3])
		_, _ = w.Write(in[3:])
		_ = w.Close()
	}()
	var f Frame
	if err := fr.Next(&f); err != iotest.ErrTimeout {
		t.Fatal(err)
	}
	if err := fr.Next(&f); err != nil || f.ID != 1 {
		t.Fatal(err)
	}
	if err := fr.Next(&f); err != io.EOF {
		t.Fatal(err)
	}
}

func TestFrameReaderAllocations(t *testing.T) {
	frame := AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 1, Payload: make([]byte, 128)})
	fr := NewFrameReader(&repeat{b: bytes.Repeat(frame, 100)}, 0)
	var f Frame
	if n := testing.AllocsPerRun(5000, func() {
		if err := fr.Next(&f); err != nil {
			t.Fatal(err)
		}
	}); n > 0.01 && !raceEnabled {
		t.Errorf("%v allocations a frame", n)
	}
	fr.Close()
}

type repeat struct {
	b   []byte
	off int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.off:])
	r.off = (r.off + n) % len(r.b)
	return n, nil
}

func FuzzFrameReader(f *testing.F) {
	var all []byte
	for _, fr := range smallFrames() {
		all = AppendFrame(all, &fr)
	}
	f.Add(all, uint64(1))
	f.Add([]byte{0, 0, 0, 0}, uint64(2))
	f.Add([]byte{0, 0x10, 0, 0, 1, 2}, uint64(3))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		const limit = 4096
		fr := NewFrameReader(&pieces{bytes.Clone(in), rand.New(rand.NewPCG(seed, 0))}, limit)
		defer fr.Close()
		rest := in
		for {
			var got, want Frame
			err := fr.Next(&got)
			if err == io.EOF && len(rest) == 0 {
				return
			}
			if len(rest) < LengthBytes {
				if err != io.ErrUnexpectedEOF {
					t.Fatalf("%d bytes left: %v", len(rest), err)
				}
				return
			}
			n := int(binary.BigEndian.Uint32(rest))
			switch {
			case n > limit+MaxHeader:
				if !errors.Is(err, ErrTooLarge) {
					t.Fatal(err)
				}
				return
			case n > 0 && len(rest) < LengthBytes+n:
				if err != io.ErrUnexpectedEOF {
					t.Fatal(err)
				}
				return
			case err != nil:
				if n > 0 && DecodeFrame(rest[LengthBytes:LengthBytes+n], &want) == nil && len(want.Payload) <= limit {
					t.Fatalf("%x refused: %v", rest[:LengthBytes+n], err)
				}
				return
			}
			if err := DecodeFrame(rest[LengthBytes:LengthBytes+n], &want); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v want %+v (%v)", got, want, err)
			}
			rest = rest[LengthBytes+n:]
		}
	})
}
