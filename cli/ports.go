package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// portPicker chooses addresses to listen on that are free at this moment and that it has not given out before.
type portPicker struct {
	free   func(network, addr string) bool
	given  map[string]bool
	wanted map[string]bool // kept for those who prefer them: no substitute for somebody else's

	// reserve keeps a port from other processes that choose at the same moment, waiting that long for who holds it. nil: nobody
	// else chooses.
	reserve func(network, addr string, wait time.Duration) (giveBack func(), ok bool)
	held    []func()

	mine map[string]bool // kept by the "imctl dev" that runs on this node's folder, for this node
}

// newPortPicker reserves what it gives out, by locks that end with close or the process.
func newPortPicker() *portPicker {
	p := &portPicker{free: canListen, given: map[string]bool{}, wanted: map[string]bool{}}
	var swept sync.Once
	p.reserve = func(network, addr string, wait time.Duration) (giveBack func(), ok bool) {
		_, port, _ := net.SplitHostPort(addr) // who asks has looked
		dir := filepath.Join(os.TempDir(), fmt.Sprintf("imctl-%d-ports", os.Getuid()))
		unlock, err := func() {}, os.MkdirAll(dir, 0o700)
		if err == nil {
			swept.Do(func() { removeUnheld(dir) })
			unlock, err = lockPassing(filepath.Join(dir, network+"-"+port+".lock"), wait)
		}
		if err != nil {
			return func() {}, !errors.Is(err, errLocked) // no place for a lock: then there is none
		}
		return unlock, true
	}
	return p
}

// takeWait is longer than removeUnheld holds a lock.
const takeWait = 4 * time.Millisecond

// take reserves an address if it is free. It is reserved before it is tried: to try is to listen for a moment, and that would
// be in the way of whoever has chosen this address and is about to listen.
func (p *portPicker) take(network, addr string) bool {
	giveBack, ok := func() {}, true
	if p.reserve != nil && !p.mine[network+addr] {
		giveBack, ok = p.reserve(network, addr, takeWait)
	}
	if ok && p.free(network, addr) {
		p.held = append(p.held, giveBack)
		return true
	}
	giveBack()
	return false
}

// holdWait is longer than anybody takes to try whether a few ports are free.
const holdWait = time.Second

// hold reserves the ports that the operator named, so that nobody tries them while this node begins to listen. Who holds one
// for longer listens there; then listening fails and says so.
func (p *portPicker) hold(s nodeSettings) {
	deadline := time.Now().Add(holdWait) // for all of them
	for _, l := range []struct{ network, addr string }{{"udp", s.mesh}, {"tcp", s.clientTCP}, {"tcp", s.clientWS}, {"tcp", s.admin}} {
		if fixedPort(l.addr) && !p.mine[l.network+l.addr] {
			giveBack, _ := p.reserve(l.network, l.addr, time.Until(deadline))
			p.held = append(p.held, giveBack)
		}
	}
}

// fixedPort tells whether an address to listen on names a port by its number.
func fixedPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	n, notNumber := strconv.Atoi(port)
	return err == nil && notNumber == nil && n >= 1 && n <= 65535
}

// keptByDev notes which ports a running "imctl dev" keeps for the node of a data folder: for as long as it runs it holds those of
// all its nodes, so that nobody takes them from one that is down for a while. A node that is started by hand in its folder is
// that node.
func (p *portPicker) keptByDev(data string) {
	data = absolute(data)
	dir := filepath.Dir(data)
	if !devRuns(dir) {
		return
	}
	c, err := readCluster(filepath.Join(dir, devClusterTag))
	if err != nil {
		return // then they are somebody else's
	}
	for _, n := range c.Nodes {
		if n.Name == filepath.Base(data) {
			p.mine = map[string]bool{"udp" + n.Mesh: true, "tcp" + n.ClientTCP: true, "tcp" + n.ClientWS: true, "tcp" + n.Admin: true}
		}
	}
}

// close gives back what was reserved.
func (p *portPicker) close() {
	for _, unlock := range p.held {
		unlock()
	}
	p.held = nil
}

// want keeps a node's preferred addresses for it.
func (p *portPicker) want(a wire.Addrs) {
	p.wanted["udp"+a.Mesh], p.wanted["tcp"+a.ClientTCP], p.wanted["tcp"+a.ClientWS], p.wanted["tcp"+a.Admin] = true, true, true, true
}

// canListen tries it. Between this and the real listening somebody else may come first; then that fails with a clear
// message.
func canListen(network, addr string) bool {
	if network == "udp" {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// one returns want if it is free, else a nearby free address above it, else any free one.
func (p *portPicker) one(network, want string, step int) (string, error) {
	host, portText, err := net.SplitHostPort(want)
	if err != nil {
		return "", err
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return "", fmt.Errorf("port %q: want 1 to 65535", portText)
	}
	const tries = 100
	for i := 0; i < tries && port+i*step <= 65535; i++ {
		addr := net.JoinHostPort(host, strconv.Itoa(port+i*step))
		key := network + addr
		if !p.given[key] && (i == 0 || !p.wanted[key]) && p.take(network, addr) {
			p.given[key] = true
			return addr, nil
		}
	}
	return "", fmt.Errorf("no free port near %s", want)
}

// node returns addresses for the four listeners of a node: those wanted as far as they are free.
func (p *portPicker) node(want wire.Addrs) (wire.Addrs, error) {
	var got wire.Addrs
	for _, l := range []struct {
		network, want string
		got           *string
	}{{"udp", want.Mesh, &got.Mesh}, {"tcp", want.ClientTCP, &got.ClientTCP}, {"tcp", want.ClientWS, &got.ClientWS}, {"tcp", want.Admin, &got.Admin}} {
		addr, err := p.one(l.network, l.want, portStep)
		if err != nil {
			return got, err
		}
		*l.got = addr
	}
	return got, nil
}

// portStep is the distance between the ports of two nodes on one machine: their last digits say what they are for.
const portStep = 10

// preferredAddrs are the addresses of the n-th node (from 0) on this machine.
func preferredAddrs(base, n int) wire.Addrs {
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+portStep*n+i)) }
	return wire.Addrs{Mesh: at(0), ClientTCP: at(1), ClientWS: at(2), Admin: at(3)}
}

// listenFile remembers in a data folder where a node listened the last time, and what it told others to dial.
const listenFile = "listen.json"

type listenMemory struct {
	wire.Addrs
	Advertise *advertiseMemory `json:"advertise,omitempty"`
	LAN       bool             `json:"lan,omitempty"` // the host was this machine's address on the LAN; it may have another now
}

type advertiseMemory struct {
	All string `json:"all,omitempty"`
	wire.Addrs
}

func readListenMemory(data string) (had listenMemory, ok bool) {
	b, err := os.ReadFile(filepath.Join(data, listenFile))
	if err != nil { // nothing to prefer
		return had, false
	}
	ok = json.Unmarshal(b, &had) == nil && had.Mesh != "" && had.ClientTCP != "" && had.ClientWS != "" && had.Admin != ""
	for _, addr := range []*string{&had.Mesh, &had.ClientTCP, &had.ClientWS, &had.Admin} {
		if !fixedPort(*addr) { // versions before this one wrote down what they were told, port 0 too
			*addr = ""
		}
	}
	return had, ok
}

// tellMoved warns if a node that was here before listens elsewhere than it did. It must be called before rememberBinds.
func tellMoved(s *nodeSettings, log *slog.Logger) {
	had, ok := readListenMemory(s.data)
	if !ok {
		if _, err := os.Stat(filepath.Join(s.data, listenFile)); err == nil {
			log.Warn("cannot read where this node listened the last time: it listens where a new one would; say where with --mesh, --client, --client-ws and --admin",
				"file", filepath.Join(s.data, listenFile))
		}
		return
	}
	for _, l := range []struct{ what, was, now string }{
		{"mesh", had.Mesh, s.mesh}, {"client", had.ClientTCP, s.clientTCP}, {"client-ws", had.ClientWS, s.clientWS}, {"admin", had.Admin, s.admin},
	} {
		if l.was != l.now && !s.lan {
			log.Warn("the address of the last time is taken, or kept for a node of an \"imctl dev\" that runs: this node listens on another one. Does it run already, from a copy of its data folder?",
				"listener", l.what, "was", l.was, "now", l.now)
		}
	}
}

// rememberedBinds completes what the operator said about this start with what held the last time.
func rememberedBinds(s *nodeSettings) {
	had, ok := readListenMemory(s.data)
	if !ok {
		return
	}
	fill := func(v *string, was string) {
		if *v == "" {
			*v = was
		}
	}
	fill(&s.mesh, had.Mesh)
	fill(&s.clientTCP, had.ClientTCP)
	fill(&s.clientWS, had.ClientWS)
	fill(&s.admin, had.Admin)
	rememberedAdvertise(s, had)
}

// rememberedAdvertise: whoever says anything about what to advertise says all of it.
func rememberedAdvertise(s *nodeSettings, had listenMemory) {
	if had.Advertise == nil || s.advertise+s.advertiseMesh+s.advertiseClientTCP+s.advertiseClientWS+s.advertiseAdmin != "" {
		return
	}
	a := had.Advertise
	s.advertise, s.advertiseMesh, s.advertiseClientTCP, s.advertiseClientWS, s.advertiseAdmin = a.All, a.Mesh, a.ClientTCP, a.ClientWS, a.Admin
}

// chooseBinds gives a node that was not told where to listen the addresses it had the last time, else the default ones,
// else free ones.
func chooseBinds(s *nodeSettings, p *portPicker) error {
	want := defaultBinds
	if had, ok := readListenMemory(s.data); ok {
		want = orAddrs(had.Addrs, want)
		s.lan = s.lan || had.LAN
		rememberedAdvertise(s, had)
	}
	if s.lan {
		want = onLAN(want, s.discoverInterface)
	}
	got, err := p.node(want)
	if err != nil {
		return fail("ports", "say where to listen with --mesh, --client, --client-ws and --admin", "%w", err)
	}
	s.mesh, s.clientTCP, s.clientWS, s.admin = got.Mesh, got.ClientTCP, got.ClientWS, got.Admin
	return nil
}

// orAddrs fills what is missing in a from b.
func orAddrs(a, b wire.Addrs) wire.Addrs {
	return wire.Addrs{Mesh: cmp.Or(a.Mesh, b.Mesh), ClientTCP: cmp.Or(a.ClientTCP, b.ClientTCP), ClientWS: cmp.Or(a.ClientWS, b.ClientWS), Admin: cmp.Or(a.Admin, b.Admin)}
}

// boundPort is told with the port that the system chose for it if it names none.
func boundPort(told, bound string) string {
	if fixedPort(told) {
		return told
	}
	host, _, err := net.SplitHostPort(told)
	_, port, err2 := net.SplitHostPort(bound)
	if err != nil || err2 != nil {
		return bound
	}
	return net.JoinHostPort(host, port)
}

// rememberBinds writes what readListenMemory reads; bound is where the node listens. Failing is no reason not to run.
func rememberBinds(s nodeSettings, bound wire.Addrs) error {
	told := orAddrs(wire.Addrs{Mesh: s.mesh, ClientTCP: s.clientTCP, ClientWS: s.clientWS, Admin: s.admin}, bound)
	m := listenMemory{LAN: s.lan, Addrs: wire.Addrs{
		Mesh: boundPort(told.Mesh, bound.Mesh), ClientTCP: boundPort(told.ClientTCP, bound.ClientTCP),
		ClientWS: boundPort(told.ClientWS, bound.ClientWS), Admin: boundPort(told.Admin, bound.Admin),
	}}
	if s.advertise+s.advertiseMesh+s.advertiseClientTCP+s.advertiseClientWS+s.advertiseAdmin != "" {
		m.Advertise = &advertiseMemory{s.advertise, wire.Addrs{
			Mesh: s.advertiseMesh, ClientTCP: s.advertiseClientTCP, ClientWS: s.advertiseClientWS, Admin: s.advertiseAdmin,
		}}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeFileAtomic(filepath.Join(s.data, listenFile), append(b, '\n'), 0o600)
}
