package wire

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
)

func TestReadPast(t *testing.T) {
	ping := AppendFrame(nil, &Frame{Type: TypePing})
	for _, size := range []int{1001, 1000 + MaxHeader - 30, 1000 + MaxHeader + 1, 70_000, 3 << 20} {
		in := AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Ack: AckOwner, Payload: bytes.Repeat([]byte("x"), size)})
		for name, r := range map[string]io.Reader{
			"at once": bytes.NewReader(append(append(bytes.Clone(ping), in...), ping...)),
			"in bits": iotest.HalfReader(bytes.NewReader(append(append(bytes.Clone(ping), in...), ping...))),
		} {
			fr := NewFrameReader(r, 1000)
			fr.ReadPast(4 << 20)
			var f, send Frame
			if got, err := fr.NextSend(&f, &send); err != nil || got.Type != TypePing {
				t.Fatalf("%d %s: %+v, %v", size, name, got, err)
			}
			got, err := fr.NextSend(&f, &send)
			if !errors.Is(err, ErrReadPast) || !errors.Is(err, ErrTooLarge) || err.Error() != PastError(size, 1000).Error() {
				t.Fatalf("%d %s: %v", size, name, err)
			}
			if got.Type != TypeSend || got.To != "bob" || got.ID != 7 || got.Ack != AckOwner || len(got.Payload) != 0 {
				t.Errorf("%d %s: header %+v", size, name, got)
			}
			if got, err := fr.NextSend(&f, &send); err != nil || got.Type != TypePing {
				t.Fatalf("%d %s: behind it: %+v, %v", size, name, got, err)
			}
			if _, err := fr.NextSend(&f, &send); !errors.Is(err, io.EOF) {
				t.Errorf("%d %s: at the end: %v", size, name, err)
			}
			fr.Close()
		}
	}
	big := AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Payload: make([]byte, 5000)})
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"over that bound": {AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Payload: make([]byte, 20_000)}), ErrTooLarge},
		"cut short":       {append(bytes.Clone(big), make([]byte, 9_000)...)[:9_000], nil},
		"cut in payload":  {AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Payload: make([]byte, 9_900)})[:9_850], io.ErrUnexpectedEOF},
		"no header":       {append([]byte{0, 0, 0x28, 0}, bytes.Repeat([]byte{0xff}, 0x2800)...), ErrMalformed},
	} {
		fr := NewFrameReader(bytes.NewReader(c.in), 1000)
		fr.ReadPast(9_000)
		var f, send Frame
		_, err := fr.NextSend(&f, &send)
		if c.want == nil {
			if !errors.Is(err, ErrReadPast) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, c.want) || errors.Is(err, ErrReadPast) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, again := fr.NextSend(&f, &send); !errors.Is(again, c.want) {
			t.Errorf("%s: the second time %v", name, again)
		}
		fr.Close()
	}
}

// What is read past takes no memory.
func TestReadPastMemory(t *testing.T) {
	in := AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Payload: make([]byte, 16<<20)})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fr := NewFrameReader(bytes.NewReader(in), 1000)
	fr.ReadPast(32 << 20)
	var f, send Frame
	if _, err := fr.NextSend(&f, &send); !errors.Is(err, ErrReadPast) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// Whatever comes in, the reader ends, and what it reads past has a header and no payload.
func FuzzReadPast(f *testing.F) {
	f.Add(AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Payload: make([]byte, 500)}))
	f.Add(append(AppendFrame(nil, &Frame{Type: TypePing}), AppendFrame(nil, &Frame{Type: TypeSend, To: "bob", ID: 7, Payload: make([]byte, 9000)})...))
	f.Add([]byte{0, 0, 0x28, 0, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		fr := NewFrameReader(bytes.NewReader(in), 100)
		fr.ReadPast(10_000)
		defer fr.Close()
		var frame, send Frame
		for range len(in) + 1 { // each frame takes a byte at least
			got, err := fr.NextSend(&frame, &send)
			switch {
			case errors.Is(err, ErrReadPast):
				if len(got.Payload) != 0 {
					t.Fatalf("read past, and %d bytes were kept", len(got.Payload))
				}
			case err != nil:
				return
			case len(got.Payload) > 100:
				t.Fatalf("a payload of %d bytes", len(got.Payload))
			}
		}
		t.Fatal("no end")
	})
}
