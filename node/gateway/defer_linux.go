package gateway

import "syscall"

// heardWithin is for how many seconds the system keeps a connection to itself that says nothing. After that it is accepted as it is,
// and has the handshake's time.
const heardWithin = 3

// acceptHeard has a listener accept connections that have said something, as all our clients do first: one that is accepted is
// ready to be served, so there is never a crowd of them that gets ready together. A system that cannot do it accepts them as they come.
func acceptHeard(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, heardWithin) // see above
	})
}
