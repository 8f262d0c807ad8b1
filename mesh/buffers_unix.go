//go:build unix

package mesh

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func socketBuffers(raw syscall.RawConn) (receive, send int) {
	_ = raw.Control(func(fd uintptr) {
		receive, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		send, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return receive, send
}
