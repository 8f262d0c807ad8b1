package mesh

import (
	"encoding/binary"
	"net"
	"runtime"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	receiveRuns   = 8
	receiveBuffer = 1 << 16 // the longest datagram, and the longest run of datagrams, that the kernel hands over
	receiveOOB    = 128

	// quic-go drops what comes for a connection while 256 of its packets wait to be processed, and the peer takes that for
	// a network that is full. So no more than openMost are given to it at a time; the rest waits in the socket's buffer.
	openMost  = 208
	openCheck = 32 // after how many packets it is looked at
	openPause = 50 * time.Microsecond
	// Packets that no connection counts (of strangers, of connections that end) look as if they were never processed. So
	// after waiting in vain all is taken for processed, and the next wait is shorter: a stranger must not be able to hold
	// up the others. A busy system may well stop a thread for some milliseconds while others go on.
	openWait    = 16 * time.Millisecond
	openWaitMin = 2 * openPause
)

// receiver is a socket whose reader takes runs of datagrams at once and gives quic-go no more than that can take.
//
// A run is what the kernel keeps together since the sender gave it as one or since it came as one from the network (UDP
// generic receive offload): it goes up through the kernel once and not packet by packet, which is most of what receiving
// costs.
//
// ReadBatch is for one goroutine, quic-go's reader; it hides the socket's other ways to read.
type receiver struct {
	*net.UDPConn
	batch *ipv4.PacketConn
	runs  []ipv4.Message

	// What was read and is not given away: runs[at:n], the first of them from off on, in datagrams of size bytes.
	at, n     int
	off, size int

	processed func() uint64 // packets that the connections have processed so far
	given     uint64        // packets given away since the count was
	base      uint64        // this
	unchecked int           // of the given, since open was called
	patience  time.Duration // how long to wait in vain
}

// received is conn as QUIC is to read it. processed counts the packets that the connections over it have processed, and
// is called from the goroutine that reads.
func received(conn *net.UDPConn, processed func() uint64) net.PacketConn {
	raw, err := conn.SyscallConn()
	if err != nil {
		return conn
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) // an old kernel hands over each by itself
	})
	r := &receiver{UDPConn: conn, batch: ipv4.NewPacketConn(conn), runs: make([]ipv4.Message, receiveRuns), processed: processed, patience: openWait}
	for i := range r.runs {
		r.runs[i].Buffers = [][]byte{make([]byte, receiveBuffer)}
		r.runs[i].OOB = make([]byte, receiveOOB)
	}
	return r
}

// ReadBatch fills ms with at least one datagram. It waits for the network only if none is left of the last read.
func (r *receiver) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if r.unchecked >= openCheck {
		r.unchecked = 0
		r.awaitRoom()
	}
	if r.at == r.n {
		n, err := r.batch.ReadBatch(r.runs, flags)
		if n <= 0 || err != nil {
			return n, err
		}
		r.at, r.n = 0, n
		r.begin()
	}
	k := 0
	for k < len(ms) && r.at < r.n {
		run := &r.runs[r.at]
		b := run.Buffers[0][r.off:min(r.off+r.size, run.N)]
		m := &ms[k]
		m.N = copy(m.Buffers[0], b)
		m.NN = copy(m.OOB, run.OOB[:run.NN])
		m.Addr, m.Flags = run.Addr, run.Flags
		k++
		if r.off += len(b); r.off >= run.N {
			r.at++
			r.begin()
		}
	}
	r.given += uint64(k)
	r.unchecked += k
	return k, nil
}

// begin puts off and size for the datagrams of runs[at].
func (r *receiver) begin() {
	if r.at == r.n {
		return
	}
	run := &r.runs[r.at]
	r.off, r.size = 0, max(run.N, 1)
	if size := segmentSize(run.OOB[:run.NN]); size > 0 {
		r.size = size
	}
}

// segmentSize finds how long each datagram of a run is, of which the last may be shorter; 0 if it is a single one.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			return int(binary.NativeEndian.Uint32(data))
		}
		oob = rest
	}
	return 0
}

// awaitRoom waits while too many of the packets given away are not processed.
func (r *receiver) awaitRoom() {
	if r.open() <= openMost {
		return
	}
	runtime.Gosched()
	begun := time.Now()
	for r.open() > openMost {
		if time.Since(begun) >= r.patience {
			r.given, r.base = 0, r.processed()
			r.patience = max(r.patience/2, openWaitMin)
			return
		}
		time.Sleep(openPause)
	}
	r.patience = openWait
}

// open is how many packets were given away and not processed. Connections may count more than they were given (several
// packets in a datagram, or of a time before the last reset): then all was processed.
func (r *receiver) open() uint64 {
	done := r.processed() - r.base
	if done > r.given {
		r.given, r.base = 0, r.base+done
		return 0
	}
	return r.given - done
}
