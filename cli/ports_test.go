package cli

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestPortZeroIsNotRemembered: what a node comes back to is the port that the system chose, and a port 0 that a former version
// wrote down is nothing to come back to.
func TestPortZeroIsNotRemembered(t *testing.T) {
	w := newWorld(t)
	servers := make(chan *fakeServer, 1)
	w.start = func(s nodeSettings, log *slog.Logger) (server, error) {
		f := newFakeServer(s, log)
		servers <- f
		return f, nil
	}
	data := filepath.Join(w.dir, "d")
	start := func(args ...string) *fakeServer {
		t.Helper()
		code := make(chan int, 1)
		go func() {
			c, _, _ := w.run(append([]string{"node", "start", "--no-context", "--data", data}, args...)...)
			code <- c
		}()
		f := <-servers
		<-f.Ready()
		f.end(nil)
		if c := <-code; c != ExitOK {
			t.Fatalf("exit code %d", c)
		}
		return f
	}
	first := start("--name", "n1", "--bootstrap", "--mesh", "127.0.0.1:0", "--client", ":0", "--client-ws", "localhost:0", "--admin", "127.0.0.1:0")
	had, ok := readListenMemory(data)
	want := wire.Addrs{Mesh: "127.0.0.1:4001", ClientTCP: ":4002", ClientWS: "localhost:4003", Admin: first.listener}
	if !ok || had.Addrs != want {
		t.Fatalf("remembered %+v, want %+v", had.Addrs, want)
	}
	if again := start(); again.listener != first.listener {
		t.Errorf("listened at %s, now at %s", first.listener, again.listener)
	}
	if err := os.WriteFile(filepath.Join(data, listenFile), []byte(`{"mesh":"127.0.0.1:0","client_tcp":"127.0.0.1:39017","client_ws":"127.0.0.1:0","admin":"127.0.0.1:0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPortPicker()
	defer p.close()
	p.free = func(string, string) bool { return true }
	s := nodeSettings{data: data}
	if err := chooseBinds(&s, p); err != nil || !fixedPort(s.mesh) || s.clientTCP != "127.0.0.1:39017" || !fixedPort(s.clientWS) || !fixedPort(s.admin) {
		t.Errorf("%v %+v", err, s)
	}
}

func TestBoundPort(t *testing.T) {
	for _, c := range [][3]string{
		{"127.0.0.1:0", "127.0.0.1:41", "127.0.0.1:41"},
		{":0", "[::]:41", ":41"},
		{"n1.example:https", "10.0.0.1:443", "n1.example:443"},
		{"n1.example:7900", "10.0.0.1:7900", "n1.example:7900"},
		{"", "127.0.0.1:7900", "127.0.0.1:7900"},
	} {
		if got := boundPort(c[0], c[1]); got != c[2] {
			t.Errorf("told %q, bound %q: %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

// TestManyChooseAtOnce: nodes that choose their ports at the same moment, as processes on one machine do, choose different ones,
// and nobody's trying makes anybody's listening fail.
func TestManyChooseAtOnce(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // where the locks are
	base := 31000 + os.Getpid()%200*5
	const choosers, rounds = 8, 12
	for range rounds {
		var wg sync.WaitGroup
		var mu sync.Mutex
		taken := map[string]int{}
		var open []func() error
		listen := func(who int, network, addr string) {
			var closer func() error
			var err error
			if network == "udp" {
				var c net.PacketConn
				if c, err = net.ListenPacket("udp", addr); err == nil {
					closer = c.Close
				}
			} else {
				var l net.Listener
				if l, err = net.Listen("tcp", addr); err == nil {
					closer = l.Close
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("chooser %d: %v", who, err)
				return
			}
			open = append(open, closer)
			if other, ok := taken[network+addr]; ok {
				t.Errorf("%d and %d both chose %s", who, other, addr)
			}
			taken[network+addr] = who
		}
		pickers := make([]*portPicker, choosers)
		for i := range pickers {
			p := newPortPicker()
			pickers[i] = p
			wg.Go(func() {
				a, err := p.node(preferredAddrs(base, 0))
				if err != nil {
					t.Errorf("chooser %d: %v", i, err)
					return
				}
				listen(i, "udp", a.Mesh)
				listen(i, "tcp", a.ClientTCP)
				listen(i, "tcp", a.ClientWS)
				listen(i, "tcp", a.Admin)
			})
		}
		wg.Wait()
		for _, f := range open {
			_ = f()
		}
		for _, p := range pickers {
			p.close()
		}
	}
}

// TestTakeGivesBack: what is not free is not kept from others.
func TestTakeGivesBack(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	p, q := newPortPicker(), newPortPicker()
	defer p.close()
	defer q.close()
	if p.take("tcp", addr) {
		t.Fatal("took what is not free")
	}
	q.free = func(string, string) bool { return true }
	if !q.take("tcp", addr) {
		t.Error("kept from others")
	}
	p.free = q.free
	if p.take("tcp", addr) {
		t.Error("taken twice")
	}
}

// TestHold: others that look for a free port are not in the way of a node that was told where to listen.
func TestHold(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	told := fmt.Sprintf("127.0.0.1:%d", 33000+os.Getpid()%200*5)
	if !canListen("tcp", told) {
		t.Skip("somebody else listens at " + told)
	}
	looking := newPortPicker()
	looking.free = func(network, addr string) bool {
		l, err := net.Listen(network, addr)
		if err == nil {
			<-time.After(time.Millisecond) // a slow machine's try
			_ = l.Close()
		}
		return false // and it goes on looking
	}
	for i := range 30 {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range 10 {
					_ = looking.take("tcp", told)
				}
			})
		}
		<-time.After(time.Millisecond)
		p := newPortPicker()
		p.hold(nodeSettings{clientTCP: told})
		if l, err := net.Listen("tcp", told); err != nil {
			t.Errorf("time %d: %v", i, err)
		} else {
			_ = l.Close()
		}
		wg.Wait()
		p.close()
	}
}
