package nodetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Spaces puts each node into a network namespace of its own. They hang on a bridge by which the nodes reach each other, so
// packets between them really pass through the kernel's network and are lost there. What clients and operators dial are the
// nodes' usual loopback addresses: a listener outside passes each connection on to the same address within the namespace.
//
// Cuts are made by a packet filter of the node that is not to hear (nft or iptables, whichever there is), or else by a
// blackhole route of the one that is not to be heard.
type Spaces struct {
	nodes  []*Node
	tag    string // in the names of everything that is made
	subnet string // first three parts
	filter string // "nft", "iptables" or "" for routes

	wg   sync.WaitGroup
	ctx  context.Context // ends with close
	stop context.CancelFunc
	ins  []net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu; nil once closed
}

// spacesMade keeps the names of one process apart: what a namespace held is removed by the kernel some time after its end.
var spacesMade atomic.Int64

// commandWait bounds one ip, nft or iptables.
const commandWait = 10 * time.Second

func command(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// needsSpaces is why network namespaces cannot be used here; empty if they can.
func needsSpaces() string {
	if _, err := exec.LookPath("ip"); err != nil {
		return "network namespaces need ip (iproute2), which is not installed"
	}
	name := fmt.Sprintf("imr%dtry", os.Getpid())
	if err := command("ip", "netns", "add", name); err != nil {
		return "network namespaces need root: " + err.Error()
	}
	defer command("ip", "netns", "del", name) //nolint:errcheck // it was just made
	for _, args := range [][]string{
		{"ip", "link", "add", name + "b", "type", "bridge"},
		{"ip", "link", "del", name + "b"},
		{"ip", "-n", name, "link", "set", "lo", "up"},
		{"ip", "netns", "exec", name, "true"},
	} {
		if err := command(args...); err != nil {
			return "network namespaces with a bridge do not work here: " + err.Error()
		}
	}
	return ""
}

func newSpaces(nodes []*Node) (_ *Spaces, err error) {
	s := &Spaces{nodes: nodes, conns: map[net.Conn]struct{}{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	// The bridge's name is what makes the subnet ours: making it fails if another run has it.
	for try := 0; ; try++ {
		k := (os.Getpid()*16 + int(spacesMade.Add(1))) % 4096
		s.tag = fmt.Sprintf("imr%d", k)
		s.subnet = fmt.Sprintf("10.%d.%d", 208+k/256, k%256)
		if err = command("ip", "link", "add", s.tag+"b", "type", "bridge"); err == nil {
			break
		}
		if try == 20 {
			s.tag = ""
			return nil, err
		}
	}
	if err := command("ip", "link", "set", s.tag+"b", "up"); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if err := s.add(n); err != nil {
			return nil, err
		}
	}
	s.filter = s.findFilter()
	return s, nil
}

func (s *Spaces) space(n *Node) string { return fmt.Sprintf("%sn%d", s.tag, n.Index+1) }
func (s *Spaces) ip(n *Node) string    { return fmt.Sprintf("%s.%d", s.subnet, n.Index+1) }
func (s *Spaces) outer(n *Node) string { return fmt.Sprintf("%sv%d", s.tag, n.Index+1) }

// within is a command line that runs in a node's namespace.
func (s *Spaces) within(n *Node, args []string) []string {
	return append([]string{"ip", "netns", "exec", s.space(n)}, args...)
}

func (s *Spaces) do(n *Node, args ...string) error { return command(s.within(n, args)...) }

func (s *Spaces) add(n *Node) error {
	for _, args := range [][]string{
		{"ip", "netns", "add", s.space(n)},
		{"ip", "link", "add", s.outer(n), "type", "veth", "peer", "name", "eth0", "netns", s.space(n)},
		{"ip", "link", "set", s.outer(n), "master", s.tag + "b"},
		{"ip", "link", "set", s.outer(n), "up"},
		{"ip", "-n", s.space(n), "addr", "add", s.ip(n) + "/24", "dev", "eth0"},
		{"ip", "-n", s.space(n), "link", "set", "eth0", "up"},
		{"ip", "-n", s.space(n), "link", "set", "lo", "up"},
	} {
		if err := command(args...); err != nil {
			return err
		}
	}
	_, port, err := net.SplitHostPort(n.mesh)
	if err != nil {
		return err
	}
	n.mesh = net.JoinHostPort(s.ip(n), port)
	for _, addr := range []string{n.ClientTCP, n.ClientWS, n.AdminAddr} {
		if addr == "" { // nobody outside talks to it
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		s.ins = append(s.ins, l)
		s.wg.Go(func() { s.accept(l, n, addr) })
	}
	return nil
}

// findFilter tries what there is on the first node, which is left as it was.
func (s *Spaces) findFilter() string {
	n := s.nodes[0]
	if s.do(n, "nft", "add table inet imr; add chain inet imr in { type filter hook input priority 0; }; flush ruleset") == nil {
		return "nft"
	}
	if s.do(n, "iptables", "-F", "INPUT") == nil {
		return "iptables"
	}
	return ""
}

// accept passes connections to addr on into n's namespace.
func (s *Spaces) accept(l net.Listener, n *Node, addr string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		s.wg.Go(func() { s.pass(c, n, addr) })
	}
}

func (s *Spaces) pass(c net.Conn, n *Node, addr string) {
	defer s.forget(c)
	if !s.keep(c) {
		return
	}
	in, err := s.dial(n, addr)
	if err != nil {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // refused, as far as that can be told now
		}
		return
	}
	defer s.forget(in)
	if !s.keep(in) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(in, c) // ends when either side does; the reason is each side's own to see
		_ = in.Close()
	})
	_, _ = io.Copy(c, in)
	_ = c.Close()
	wg.Wait()
}

func (s *Spaces) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Spaces) forget(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// dial connects from within n's namespace: a socket stays in the one in which it was made.
func (s *Spaces) dial(n *Node, addr string) (net.Conn, error) {
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled, 1)
	s.wg.Go(func() {
		// The thread is not given back: it ends with this goroutine, so nothing else ever runs in the namespace.
		runtime.LockOSThread()
		space, err := os.Open("/run/netns/" + s.space(n))
		if err == nil {
			err = errors.Join(unix.Setns(int(space.Fd()), unix.CLONE_NEWNET), space.Close())
		}
		if err != nil {
			done <- dialled{nil, err}
			return
		}
		d := net.Dialer{Timeout: 2 * time.Second}
		conn, err := d.DialContext(s.ctx, "tcp", addr) // a literal address: dialled by this very goroutine
		done <- dialled{conn, err}
	})
	r := <-done
	return r.conn, r.err
}

// Cut loses what from sends to to.
func (s *Spaces) Cut(from, to *Node) error {
	switch s.filter {
	case "nft":
		return s.do(to, "nft", "add table inet imr; add chain inet imr in { type filter hook input priority 0; }; add rule inet imr in ip saddr "+s.ip(from)+" drop")
	case "iptables":
		return s.do(to, "iptables", "-A", "INPUT", "-s", s.ip(from), "-j", "DROP")
	}
	return s.Blackhole(from, to)
}

// Blackhole takes from the way to to: what it sends there is refused by its own kernel.
func (s *Spaces) Blackhole(from, to *Node) error {
	return command("ip", "-n", s.space(from), "route", "add", "blackhole", s.ip(to)+"/32")
}

// Lose loses one in ten packets that come to n.
func (s *Spaces) Lose(n *Node) error {
	switch s.filter {
	case "nft":
		return s.do(n, "nft", "add table inet imr; add chain inet imr in { type filter hook input priority 0; }; add rule inet imr in ip saddr "+s.subnet+".0/24 numgen random mod 10 < 1 drop")
	case "iptables":
		return s.do(n, "iptables", "-A", "INPUT", "-s", s.subnet+".0/24", "-m", "statistic", "--mode", "random", "--probability", "0.1", "-j", "DROP")
	}
	return errors.New("neither nft nor iptables works here")
}

// Link takes a node's only network interface down or up.
func (s *Spaces) Link(n *Node, up string) error {
	return command("ip", "-n", s.space(n), "link", "set", "eth0", up)
}

// Isolate separates a node from all others, in both directions.
func (s *Spaces) Isolate(n *Node) error { return errors.Join(s.Mute(n), s.Deafen(n)) }

// Mute loses everything a node sends.
func (s *Spaces) Mute(n *Node) (err error) {
	for _, o := range s.nodes {
		if o != n {
			err = errors.Join(err, s.Cut(n, o))
		}
	}
	return err
}

// Deafen loses everything that is sent to a node.
func (s *Spaces) Deafen(n *Node) (err error) {
	for _, o := range s.nodes {
		if o != n {
			err = errors.Join(err, s.Cut(o, n))
		}
	}
	return err
}

// Heal lets everything through again.
func (s *Spaces) Heal() (err error) {
	for _, n := range s.nodes {
		err = errors.Join(err, s.Link(n, "up"), command("ip", "-n", s.space(n), "route", "flush", "type", "blackhole"))
		switch s.filter {
		case "nft":
			err = errors.Join(err, s.do(n, "nft", "flush ruleset"))
		case "iptables":
			err = errors.Join(err, s.do(n, "iptables", "-F", "INPUT"))
		}
	}
	return err
}

// close removes everything that was made; the nodes must have ended.
func (s *Spaces) close() error {
	s.stop()
	for _, l := range s.ins {
		_ = l.Close()
	}
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	if s.tag == "" {
		return nil
	}
	var err error
	for _, n := range s.nodes {
		if _, serr := os.Stat("/sys/class/net/" + s.outer(n)); serr == nil {
			err = errors.Join(err, command("ip", "link", "del", s.outer(n))) // its other end goes with it
		}
		if _, serr := os.Stat("/run/netns/" + s.space(n)); serr == nil {
			err = errors.Join(err, command("ip", "netns", "del", s.space(n)))
		}
	}
	return errors.Join(err, command("ip", "link", "del", s.tag+"b"))
}
