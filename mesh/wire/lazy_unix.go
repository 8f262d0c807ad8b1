//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// LazyConn reads lazily from a connection. It is for one goroutine at a time.
type LazyConn struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // tryRead, made once
	size int
	now  bool // rather than wait
	buf  *Buffer
	n    int
	err  error
}

// NewLazyConn returns nil if c is no plain connection of the system, say TLS or one in memory. Deadlines and Close work as with
// Read.
func NewLazyConn(c net.Conn) *LazyConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	l := &LazyConn{raw: raw}
	l.try = l.tryRead
	return l
}

// Wait says whether ReadLazily waits for something to read, as it does at first, or returns ErrNothing at once.
func (l *LazyConn) Wait(wait bool) { l.now = !wait }

// Control runs f with the connection's descriptor, which is not closed meanwhile. Any goroutine may call it.
func (l *LazyConn) Control(f func(fd uintptr)) error { return l.raw.Control(f) }

// ReadLazily is that of LazyReader; its error is io.EOF at the end of the stream.
func (l *LazyConn) ReadLazily(size int) (*Buffer, int, error) {
	l.size, l.n, l.err = size, 0, nil
	waited := l.raw.Read(l.try)
	buf, n, err := l.buf, l.n, l.err
	l.buf = nil
	switch {
	case n > 0:
		return buf, n, nil
	case waited != nil:
		err = waited
	case err == nil:
		err = io.EOF
	}
	buf.Release()
	return nil, 0, err
}

// tryRead says whether the wait is over. A reader that goes back to waiting holds no buffer.
func (l *LazyConn) tryRead(fd uintptr) bool {
	l.buf = GetBuffer(l.size)
	for {
		l.n, l.err = syscall.Read(int(fd), l.buf.B)
		if !errors.Is(l.err, syscall.EINTR) {
			break
		}
	}
	l.n = max(l.n, 0)
	if l.err == syscall.EAGAIN { //nolint:errorlint // a system call's own error, asked for each read
		l.buf.Release()
		l.buf = nil
		if l.now {
			l.err = ErrNothing
		}
		return l.now
	}
	return true
}
