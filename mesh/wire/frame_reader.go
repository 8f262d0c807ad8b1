package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes of a FrameReader's buffer in bytes.
const (
	DefaultReadBuffer = 16 << 10
	growFactor        = 4 // a buffer grows to this many times what was received, so lengths that lie buy nothing
)

// FrameReader reads frames from a stream, several per Read when they came together, and decodes them in place.
//
// While it waits for the first byte of a frame it holds no buffer; one is borrowed from a pool as bytes arrive. It is for
// one goroutine at a time.
type FrameReader struct {
	r       io.Reader
	lazy    LazyReader // r, if it is one
	maxBody int
	past    int // bytes of a frame over maxBody that is read past by NextSend; 0: none is
	bufSize int

	buf        *Buffer // nil while idle
	start, end int     // unread bytes of buf.B
	first      [LengthBytes]byte
	err        error // sticky
}

// NewFrameReader reads from r, lazily if it can, frames whose payload has at most maxPayload bytes (0 means MaxPayload).
func NewFrameReader(r io.Reader, maxPayload int) *FrameReader {
	if maxPayload <= 0 {
		maxPayload = MaxPayload
	}
	lazy, _ := r.(LazyReader)
	return &FrameReader{r: r, lazy: lazy, maxBody: MaxHeader + maxPayload, bufSize: DefaultReadBuffer}
}

// Buffered says how many bytes were received but not yet returned as frames: more than none means that Next may well
// return without blocking.
func (fr *FrameReader) Buffered() int { return fr.end - fr.start }

// Next waits for the next frame and decodes it into f, which is valid until the following call of Next or Close.
//
// Errors: io.EOF when the stream ended between frames and io.ErrUnexpectedEOF when inside one; ErrTooLarge (length above
// payload limit plus MaxHeader, or header above MaxHeader) and ErrMalformed, both by errors.Is; or what Read returned.
// After ErrTooLarge and ErrMalformed every call fails alike, for nobody knows where the next frame begins; after a Read
// error (a deadline, say) Next may be called again and goes on where it was.
func (fr *FrameReader) Next(f *Frame) error {
	_, err := fr.next(f, nil, nil)
	if err != nil {
		*f = Frame{}
	}
	return err
}

// NextSend is Next with a short way for send frames as they usually are: see DecodeSend, which decodes them into send (nil:
// everything goes into f). It returns the frame that was filled; one in send needs no Validate.
func (fr *FrameReader) NextSend(f, send *Frame) (*Frame, error) { return fr.next(f, send, DecodeSend) }

// NextDeliver is NextSend for the other way: see DecodeDeliver.
func (fr *FrameReader) NextDeliver(f, deliver *Frame) (*Frame, error) {
	return fr.next(f, deliver, DecodeDeliver)
}

func (fr *FrameReader) next(f, short *Frame, decode func([]byte, *Frame) bool) (*Frame, error) {
	body, err := fr.NextBody()
	if err != nil && fr.past > 0 && fr.err == err && errors.Is(err, ErrTooLarge) {
		return f, fr.readPast(f)
	}
	if err != nil {
		return f, err
	}
	got := short
	if short == nil || !decode(body, short) {
		got = f
		if fr.err = DecodeFrame(body, f); fr.err != nil {
			return f, fr.err
		}
	}
	if n, most := len(got.Payload), fr.maxBody-MaxHeader; n > most {
		if fr.past > 0 {
			got.Payload = nil
			return got, pastError{n, most}
		}
		fr.err = fmt.Errorf("%w: payload of %d bytes, the limit is %d", ErrTooLarge, n, most)
	}
	return got, fr.err
}

// ReadPast makes NextSend read past frames whose payload is over the limit, but has at most this many bytes: it returns
// the header with an error that is both ErrTooLarge and ErrReadPast, and goes on with the next frame. They take no memory.
func (fr *FrameReader) ReadPast(maxPayload int) { fr.past = MaxHeader + maxPayload }

// pastError says what was read past.
type pastError struct{ n, most int }

// PastError is the error of a message that was read past, also for other ways than a FrameReader.
func PastError(payload, limit int) error { return pastError{payload, limit} }

func (e pastError) Error() string {
	return fmt.Sprintf("%v: payload of %d bytes, the limit is %d", ErrTooLarge, e.n, e.most)
}

func (pastError) Is(target error) bool { return target == ErrTooLarge || target == ErrReadPast }

// readPast decodes the header of the frame at the front, which is longer than a frame may be, into f, and reads to its end.
// If that fails it fails for good.
func (fr *FrameReader) readPast(f *Frame) error {
	tooLong := fr.err
	n := int(binary.BigEndian.Uint32(fr.buf.B[fr.start:])) // length has refused it, so it is there
	if n > fr.past {
		return tooLong
	}
	for fr.Buffered() < LengthBytes+min(n, MaxHeader) { // a buffer always has room for that
		if fr.err = fr.fill(); fr.err != nil {
			return fr.err
		}
	}
	from := fr.start + LengthBytes
	head := append([]byte(nil), fr.buf.B[from:min(fr.end, from+MaxHeader)]...)
	if fr.err = DecodeFrame(head, f); fr.err != nil {
		return fr.err
	}
	header := len(head) - len(f.Payload)
	f.Payload = nil
	for left := LengthBytes + n; ; {
		k := min(left, fr.Buffered())
		fr.start += k
		if left -= k; left == 0 {
			return pastError{n - header, fr.maxBody - MaxHeader}
		}
		got, err := fr.r.Read(fr.buf.B) // over what was read past
		if fr.start, fr.end = 0, got; got > 0 {
			continue
		}
		if fr.err = noProgress(err); errors.Is(err, io.EOF) {
			fr.err = io.ErrUnexpectedEOF
		}
		return fr.err
	}
}

// NextBody is Next without decoding: what the length counted, for DecodeFrame.
func (fr *FrameReader) NextBody() ([]byte, error) {
	if fr.err != nil {
		return nil, fr.err
	}
	for {
		if body, ok, err := fr.take(); ok || err != nil {
			fr.err = err
			return body, err
		}
		if err := fr.fill(); err != nil {
			if errors.Is(err, io.EOF) && fr.Buffered() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// take cuts a whole frame out of the buffer, if there is one.
func (fr *FrameReader) take() (body []byte, ok bool, err error) {
	have := fr.Buffered()
	if have < LengthBytes {
		return nil, false, nil
	}
	n, err := fr.length()
	if err != nil || have < LengthBytes+n {
		return nil, false, err
	}
	body = fr.buf.B[fr.start+LengthBytes : fr.start+LengthBytes+n]
	fr.start += LengthBytes + n
	return body, true, nil
}

// length is what the frame at the front says of itself, checked before anybody allocates for it.
func (fr *FrameReader) length() (int, error) {
	n := binary.BigEndian.Uint32(fr.buf.B[fr.start:])
	if uint64(n) > uint64(fr.maxBody) {
		return 0, fmt.Errorf("%w: frame of %d bytes, the limit is %d", ErrTooLarge, n, fr.maxBody)
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: empty frame", ErrMalformed)
	}
	return int(n), nil
}

// fill waits for at least one more byte.
func (fr *FrameReader) fill() error {
	if fr.Buffered() == 0 {
		fr.Close() // the last frame is done with: wait without a buffer
		if fr.lazy != nil {
			buf, n, err := fr.lazy.ReadLazily(fr.bufSize)
			if err != nil {
				return err
			}
			fr.buf, fr.start, fr.end = buf, 0, n
			return nil
		}
		n, err := fr.r.Read(fr.first[:])
		if n == 0 {
			return noProgress(err)
		}
		fr.buf = GetBuffer(fr.bufSize)
		fr.end = copy(fr.buf.B, fr.first[:n])
		return nil
	}
	fr.room()
	n, err := fr.r.Read(fr.buf.B[fr.end:])
	fr.end += n
	if n == 0 {
		if fr.Buffered() == 0 {
			fr.Close()
		}
		return noProgress(err)
	}
	return nil // an error that came with bytes will come again without
}

// room makes place behind the unread bytes, which are less than one frame.
func (fr *FrameReader) room() {
	if fr.end < len(fr.buf.B) {
		return
	}
	if fr.start > 0 {
		fr.end = copy(fr.buf.B, fr.buf.B[fr.start:fr.end])
		fr.start = 0
		return
	}
	need := growFactor * len(fr.buf.B)
	if n, err := fr.length(); err == nil { // take checked it
		need = min(need, LengthBytes+n)
	}
	next := GetBuffer(max(need, len(fr.buf.B)+1))
	copy(next.B, fr.buf.B[:fr.end])
	fr.buf.Release()
	fr.buf = next
}

func noProgress(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// Close gives the buffer back. It does not close the stream; the reader can go on being used, less what was buffered.
func (fr *FrameReader) Close() {
	fr.buf.Release()
	fr.buf, fr.start, fr.end = nil, 0, 0
}
