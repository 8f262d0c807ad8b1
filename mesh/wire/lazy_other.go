//go:build !unix

package wire

import "net"

// LazyConn reads lazily from a connection, on systems that can.
type LazyConn struct{ LazyReader }

// Wait is for other systems.
func (*LazyConn) Wait(bool) {}

// NewLazyConn returns nil: this system tells nobody before it reads.
func NewLazyConn(net.Conn) *LazyConn { return nil }
