package mesh

import (
	"syscall"

	"golang.org/x/sys/windows"
)

func socketBuffers(raw syscall.RawConn) (receive, send int) {
	_ = raw.Control(func(fd uintptr) {
		receive, _ = windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_RCVBUF)
		send, _ = windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_SNDBUF)
	})
	return receive, send
}
