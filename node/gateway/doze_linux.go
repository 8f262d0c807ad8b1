package gateway

import (
	"cmp"
	"os"
	"syscall"
	"time"

	"imroute/mesh/wire"
)

// bell rings once for each connection that is left with it, as soon as there is something to read or its end has come. It is an
// epoll of its own, whose descriptor Go's poller waits for like for any other: no thread is held.
//
// Connections leave it when they are closed. They are known by their session's number, which nobody else ever has, so what it
// says of one that is gone is heard by nobody.
type bell struct {
	fd   int // valid until close
	file *os.File
	raw  syscall.RawConn

	// Of wait.
	events  [128]syscall.EpollEvent
	numbers [128]uint64
}

func newBell() (*bell, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // so that Go's poller takes it
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	b := &bell{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if err = b.file.SetReadDeadline(time.Time{}); err == nil { // fails if the poller did not
		b.raw, err = b.file.SyscallConn()
	}
	if err != nil {
		_ = b.file.Close()
		return nil, err
	}
	return b, nil
}

// watch makes the bell ring once for a connection; again: it has done so before. What is there to read already counts. Safe
// for many goroutines.
func (b *bell) watch(c *wire.LazyConn, number uint64, again bool) error {
	op := syscall.EPOLL_CTL_ADD
	if again {
		op = syscall.EPOLL_CTL_MOD
	}
	e := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(number), Pad: int32(number >> 32),
	}
	var err error
	closed := c.Control(func(fd uintptr) { err = syscall.EpollCtl(b.fd, op, int(fd), &e) })
	return cmp.Or(closed, os.NewSyscallError("epoll_ctl", err))
}

// wait returns the numbers of some connections for which the bell rang, valid until the following call. It ends with an error
// once the bell is closed. For one goroutine.
func (b *bell) wait() ([]uint64, error) {
	var n int
	var err error
	waited := b.raw.Read(func(uintptr) bool {
		n, err = syscall.EpollWait(b.fd, b.events[:], 0)
		for err == syscall.EINTR { //nolint:errorlint // a system call's own error
			n, err = syscall.EpollWait(b.fd, b.events[:], 0)
		}
		return n != 0 || err != nil
	})
	for i := range max(n, 0) {
		e := &b.events[i]
		b.numbers[i] = uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
	}
	return b.numbers[:max(n, 0)], cmp.Or(waited, os.NewSyscallError("epoll_wait", err))
}

// close is for when there are no sessions any more; nil is no bell.
func (b *bell) close() {
	if b != nil {
		_ = b.file.Close()
	}
}
