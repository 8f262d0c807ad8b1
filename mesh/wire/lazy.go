package wire

import (
	"errors"
	"io"
)

// ErrNothing is what LazyConn.ReadLazily returns instead of waiting.
var ErrNothing = errors.New("nothing to read yet")

// LazyReader is an io.Reader that borrows a buffer only once there is something to read, so that whoever waits on an idle
// connection needs none.
type LazyReader interface {
	io.Reader
	// ReadLazily waits, reads once into a buffer of size bytes and returns it with the number of bytes. The caller releases
	// it. With an error there is no buffer.
	ReadLazily(size int) (*Buffer, int, error)
}
