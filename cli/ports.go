package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"imroute/mesh/wire"
)

// portPicker chooses addresses to listen on that are free at this moment and that it has not given out before.
type portPicker struct {
	free   func(network, addr string) bool
	given  map[string]bool
	wanted map[string]bool // kept for those who prefer them: no substitute for somebody else's

	// reserve keeps an address from other processes that choose at the same moment. nil: nobody else chooses.
	reserve func(network, addr string) bool
	held    []func()
}

// newPortPicker reserves what it gives out, by locks that end with close or the process.
func newPortPicker() *portPicker {
	p := &portPicker{free: canListen, given: map[string]bool{}, wanted: map[string]bool{}}
	p.reserve = func(network, addr string) bool {
		_, port, _ := net.SplitHostPort(addr) // it was put together here
		unlock, err := lockFile(filepath.Join(os.TempDir(), fmt.Sprintf("imctl-%d-%s-%s.lock", os.Getuid(), network, port)), 0)
		if err == nil {
			p.held = append(p.held, unlock)
		}
		return !errors.Is(err, errLocked) // no place for a lock: then there is none
	}
	return p
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
		if !p.given[key] && (i == 0 || !p.wanted[key]) && p.free(network, addr) && (p.reserve == nil || p.reserve(network, addr)) {
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
	return had, json.Unmarshal(b, &had) == nil && had.Mesh != "" && had.ClientTCP != "" && had.ClientWS != "" && had.Admin != ""
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
		want = had.Addrs
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

// rememberBinds writes what readListenMemory reads. Failing is no reason not to run.
func rememberBinds(s nodeSettings) error {
	m := listenMemory{LAN: s.lan, Addrs: wire.Addrs{Mesh: s.mesh, ClientTCP: s.clientTCP, ClientWS: s.clientWS, Admin: s.admin}}
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
