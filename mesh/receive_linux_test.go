package mesh

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestCoalescedReads: runs that the kernel hands over as one come out as the datagrams that were sent, in order, each with
// its sender and its control messages, also when they do not fit into one batch.
func TestCoalescedReads(t *testing.T) {
	to := listenLoopback(t)
	c := received(to, func() uint64 { return 0 }).(*receiver)
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1) }); err != nil {
		t.Fatal(err)
	}
	a, b := listenLoopback(t), listenLoopback(t)
	var want []string
	send := func(from *net.UDPConn, size, pieces, last int) {
		t.Helper()
		var run []byte
		for i := range pieces {
			n := size
			if i == pieces-1 {
				n = last
			}
			piece := bytes.Repeat([]byte{byte(len(want))}, n)
			run = append(run, piece...)
			want = append(want, datagram(from.LocalAddr(), piece))
		}
		var oob []byte
		if pieces > 1 {
			oob = segmented(size)
		}
		if _, _, err := from.WriteMsgUDP(run, oob, to.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
	}
	send(a, 1452, 14, 37)
	send(b, 1, 1, 1)
	send(a, 0, 1, 0) // a datagram without a byte
	send(b, 1200, 3, 1200)
	send(b, 1200, 2, 1)
	send(a, 8, 60, 5)

	_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got []string
	runs := 0
	for len(got) < len(want) {
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
		}
		n, err := c.ReadBatch(ms, 0)
		if err != nil {
			t.Fatalf("after %d datagrams: %v", len(got), err)
		}
		if n == 0 {
			t.Fatal("a read of nothing")
		}
		for _, m := range ms[:n] {
			got = append(got, datagram(m.Addr, m.Buffers[0][:m.N]))
			if segmentSize(m.OOB[:m.NN]) > 0 {
				runs++
			}
			if !hasTOS(m.OOB[:m.NN]) {
				t.Error("a datagram lost its control messages")
			}
		}
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("datagram %d is %s, want %s", i, got[i], want[i])
		}
	}
	if runs < 60 {
		t.Errorf("%d datagrams came as part of a run, want those of the long runs at least: nothing was tested", runs)
	}
}

func datagram(from net.Addr, b []byte) string { return fmt.Sprintf("%v from %v", b, from) }

func listenLoopback(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func segmented(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(size))
	return b
}

func hasTOS(oob []byte) bool {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range ms {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TOS {
			return true
		}
	}
	return false
}

// TestReceiverWaits: no more is given to QUIC than it can hold while it is behind, and packets that nobody ever counts hold
// up nothing for long.
func TestReceiverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var processed atomic.Uint64
		r := &receiver{processed: processed.Load, patience: openWait}
		waited := func() time.Duration {
			begun := time.Now()
			r.awaitRoom()
			return time.Since(begun)
		}
		r.given = openMost
		if d := waited(); d != 0 {
			t.Errorf("waited %v with as many open as may be", d)
		}
		r.given += 40
		go func() {
			time.Sleep(300 * time.Microsecond)
			processed.Add(40)
		}()
		if d := waited(); d < 300*time.Microsecond || d > 300*time.Microsecond+openPause {
			t.Errorf("waited %v, want until there is room, after 300µs", d)
		}
		if n := r.open(); n != openMost {
			t.Errorf("%d open, want %d", n, openMost)
		}
		r.given += openCheck
		if d := waited(); d < openWait || d > openWait+openPause {
			t.Errorf("waited %v for what is never processed, want %v", d, openWait)
		}
		if n := r.open(); n != 0 {
			t.Errorf("%d open after that, want none", n)
		}
		r.given += 2 * openMost
		if d := waited(); d < openWait/2 || d > openWait/2+openPause {
			t.Errorf("waited %v the second time, want %v", d, openWait/2)
		}
		r.given += 7
		processed.Store(3) // a peer was dropped, and what it had processed with it
		if n := r.open(); n != 0 {
			t.Errorf("%d open after the count fell, want none", n)
		}
		r.given += 7
		if n := r.open(); n != 7 {
			t.Errorf("%d open, want 7", n)
		}
	})
}
