package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

// ether is a LAN in memory.
type ether struct {
	mu    sync.Mutex
	conns []*etherConn
}

type etherConn struct {
	e      *ether
	name   string
	in     chan etherPacket
	closed chan struct{}
	once   sync.Once
}

type etherPacket struct {
	b    []byte
	from string
}

func (e *ether) conn(name string) *etherConn {
	c := &etherConn{e: e, name: name, in: make(chan etherPacket, 256), closed: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns = append(e.conns, c)
	return c
}

func (c *etherConn) Send(b []byte) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	for _, to := range c.e.conns {
		select {
		case to.in <- etherPacket{slices.Clone(b), c.name}:
		default: // as a full socket buffer
		}
	}
	return nil
}

func (c *etherConn) Receive(buf []byte) (int, string, error) {
	select {
	case p := <-c.in:
		return copy(buf, p.b), p.from, nil
	case <-c.closed:
		return 0, "", net.ErrClosed
	}
}

func (c *etherConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// TestAgents: with goroutines and timers three agents agree on one founder, the others find it, a wrong secret is refused,
// and everybody ends.
func TestAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := &ether{}
		var logs syncBuffer
		open := func(i int, key *Key) *Agent {
			a, err := Open(Config{Key: key, Node: wire.NodeID(10 - i), Name: fmt.Sprint("n", i), Conn: lan.conn(fmt.Sprint("10.0.0.", i)), Logger: slog.New(slog.NewTextHandler(&logs, nil))})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = a.Close() })
			return a
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		key := testKey(t, "office", 1)
		begin := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var founders, joiners []int
		agents := make([]*Agent, 3)
		for i := range agents {
			agents[i] = open(i, key)
			wg.Go(func() {
				o, err := agents[i].Seek(ctx)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if o.Found {
					founders = append(founders, i)
					time.Sleep(time.Second) // founding takes time
					agents[i].Become(77, [32]byte{7}, "10.0.0.2:7900")
				} else {
					joiners = append(joiners, i)
					if len(o.Members) != 1 || o.Members[0].Mesh != "10.0.0.2:7900" || o.Members[0].Cluster != 77 {
						t.Errorf("%+v", o)
					}
				}
			})
		}
		wg.Wait()
		if !slices.Equal(founders, []int{2}) || len(joiners) != 2 {
			t.Fatalf("founders %v, joiners %v", founders, joiners)
		}
		if took := time.Since(begin); took < DefaultWait || took > 2*DefaultWait {
			t.Errorf("took %v", took)
		}

		late := open(5, key)
		begin = time.Now()
		if o, err := late.Seek(ctx); err != nil || len(o.Members) != 1 {
			t.Fatalf("%+v %v", o, err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("a member that is there was found after %v only", took)
		}
		late.Become(78, [32]byte{8}, "10.0.0.5:7900") // it founded another one, as it were
		time.Sleep(3 * memberEvery)
		if f := agents[2].Foreign(); len(f) != 1 || f[0].Cluster != 78 || !strings.Contains(logs.String(), "two clusters announce themselves") {
			t.Errorf("%v\n%s", f, logs.String())
		}

		wrong := open(6, testKey(t, "office", 2))
		if _, err := wrong.Seek(ctx); err == nil || !strings.Contains(err.Error(), "another secret") {
			t.Errorf("with a wrong secret: %v", err)
		}
		if got := agents[2].Rejected()["wrong_secret"]; got == 0 {
			t.Error("not counted")
		}
		if n := strings.Count(logs.String(), "an announcement was ignored"); n > 5 {
			t.Errorf("%d complaints", n)
		}
		stopped, stop := context.WithCancelCause(ctx)
		stop(errors.New("enough"))
		other := open(7, testKey(t, "home", 1))
		if _, err := other.Seek(stopped); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Error(err)
		}
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestLAN: two sockets of one machine hear each other and themselves over real multicast on loopback.
func TestLAN(t *testing.T) {
	port := 20000 + os.Getpid()%10000
	var conns []*LAN
	for range 2 {
		c, err := ListenLAN(LANConfig{Loopback: true, Port: port})
		if err != nil {
			t.Skipf("no multicast on loopback here: %v", err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		conns = append(conns, c)
	}
	if err := conns[0].Send([]byte("hello")); err != nil {
		t.Skipf("no multicast on loopback here: %v", err)
	}
	for i, c := range conns {
		_ = c.in.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, MaxPacket+1)
		n, from, err := c.Receive(buf)
		if err != nil || string(buf[:n]) != "hello" || from != "127.0.0.1" {
			t.Errorf("%d: %q from %s, %v", i, buf[:n], from, err)
		}
	}
	if _, err := ListenLAN(LANConfig{Interfaces: []string{filepath.Base(t.Name())}}); err == nil {
		t.Error("an interface that is not there is taken")
	}
	_ = conns[1].Close()
	if err := conns[1].Send(nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, _, err := conns[1].Receive(make([]byte, 9)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
