package node

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
	"imroute/raftfsm"
)

// enters logs a client of a tenant in without an SDK; nil: it was turned away, and why.
func (c *cluster) enters(at *Node, tenant, id string) (net.Conn, *wire.Frame) {
	c.t.Helper()
	conn, err := net.DialTimeout("tcp", at.Addrs().ClientTCP, patience)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	login := wire.Frame{Type: wire.TypeLogin, Tenant: tenant, Client: id, Instance: wire.NewID(), Attempt: 1, Version: wire.ProtocolVersion}
	if _, err := conn.Write(wire.AppendFrame(nil, &login)); err != nil {
		c.t.Fatal(err)
	}
	in := wire.NewFrameReader(conn, wire.MaxPayload)
	defer in.Close()
	for {
		var f wire.Frame
		if err := in.Next(&f); err != nil {
			c.t.Fatalf("login of %s:%s: %v", tenant, id, err)
		}
		switch f.Type {
		case wire.TypeWelcome:
			return conn, nil
		case wire.TypeKick:
			_ = conn.Close()
			return nil, f.Clone()
		}
	}
}

// shares waits until a node divides the limits of tenants by so many nodes: it asks how many there are once a second.
func (c *cluster) shares(at *Node, nodes int) {
	c.t.Helper()
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			_ = conn.Close()
		}
	}()
	c.until(fmt.Sprintf("%s divides by %d", at.Name(), nodes), func() error {
		conn, kick := c.enters(at, "probe", fmt.Sprintf("%s-%d", at.Name(), len(held)))
		if kick == nil {
			held = append(held, conn)
			if len(held) > 6 {
				for _, conn := range held {
					_ = conn.Close()
				}
				held = nil
			}
			return fmt.Errorf("%d of its connections are taken", len(held))
		}
		if want := fmt.Sprintf("%d of 6 in", (6+nodes-1)/nodes); !strings.Contains(kick.Text, want) {
			return fmt.Errorf("it says %q, not %q", kick.Text, want)
		}
		return nil
	})
}

// What a tenant may use holds for the whole cluster, whichever nodes its clients are on; each node enforces its share, and others
// are not touched by it.
func TestTenantLimitsOfCluster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	text := "probe: {tenant-sessions: 6}\ncrowd: {tenant-sessions: 6}\nchatty: {tenant-rate: 90}\nheavy: {tenant-bytes: 30000}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	n1, n2, n3 := c.three(func(cfg *Config) { cfg.Limits.File = file })
	nodes := []*Node{n1, n2, n3}
	for _, n := range nodes {
		c.shares(n, 3)
	}

	t.Log("connections: two at each of three nodes make six")
	var first net.Conn
	for _, n := range nodes {
		for i := range 2 {
			conn, kick := c.enters(n, "crowd", fmt.Sprintf("%s-%d", n.Name(), i))
			if kick != nil {
				t.Fatalf("%d at %s: %v %s", i, n.Name(), kick.Code, kick.Text)
			}
			if first == nil {
				first = conn
			}
		}
	}
	for _, n := range nodes {
		if _, kick := c.enters(n, "crowd", "seventh"); kick == nil || kick.Code != wire.Busy || kick.RetryMS == 0 || len(kick.Addrs) != 2 {
			t.Errorf("the seventh, at %s: %+v", n.Name(), kick)
		}
		if _, kick := c.enters(n, "other", "a-"+n.Name()); kick != nil {
			t.Errorf("another tenant's at %s: %v %s", n.Name(), kick.Code, kick.Text)
		}
	}
	_ = first.Close()
	c.until("there is room again", func() error {
		if _, kick := c.enters(n1, "crowd", "seventh"); kick != nil {
			return fmt.Errorf("%v %s", kick.Code, kick.Text)
		}
		return nil
	})

	dial := func(tenant, id string, at *Node) *user {
		cfg, u := dialConfig(id, at)
		cfg.Tenant = tenant
		if tenant != "free" {
			cfg.OnMessage = func(client.Message) {}
		}
		if err := c.dialErr(cfg, u); err != nil {
			t.Fatalf("%s:%s: %v", tenant, id, err)
		}
		return u
	}
	// burst sends from every node at the same time and counts how the messages end.
	burst := func(tenant string, each int, payload []byte) (got map[wire.Code]int, took time.Duration) {
		t.Helper()
		dial(tenant, "sink", n1)
		var mu sync.Mutex
		var wg sync.WaitGroup
		got = map[wire.Code]int{}
		var users []*user
		for _, n := range nodes {
			users = append(users, dial(tenant, "from-"+n.Name(), n))
		}
		began := time.Now()
		for _, u := range users {
			for range each {
				wg.Add(1)
				_, err := u.SendToAsync(client.ToClient("sink"), payload, wire.AckOwner, patience, func(r client.Result) {
					defer wg.Done()
					mu.Lock()
					defer mu.Unlock()
					got[r.Code]++
					if r.Code == wire.RateLimited && r.Retry <= 0 {
						t.Errorf("%s: rate_limited without a time to wait", tenant)
					}
				})
				if err != nil {
					wg.Done()
					t.Fatal(err)
				}
			}
		}
		wg.Wait()
		return got, time.Since(began)
	}
	// judge: what was saved up in a second, and what came in since, with a tick of the coarse clock, and no more.
	judge := func(what string, rate float64, got map[wire.Code]int, sent int, took time.Duration) {
		t.Helper()
		most := int(rate*(1.3+took.Seconds())) + 6
		t.Logf("%s: %v in %v, at most %d", what, got, took, most)
		if n := got[wire.Delivered]; n > most || n < int(rate*0.6) || n+got[wire.RateLimited] != sent {
			t.Errorf("%s: %v of %d in %v, want %d to %d delivered and all others rate_limited", what, got, sent, took, int(rate*0.6), most)
		}
	}
	t.Log("messages a second: all nodes together let no more through than the limit")
	got, took := burst("chatty", 200, []byte("x"))
	judge("90 messages a second", 90, got, 600, took)
	t.Log("bytes a second")
	got, took = burst("heavy", 60, make([]byte, 1000))
	judge("30,000 bytes a second", 30, got, 180, took)
	t.Log("another tenant is not slowed")
	if got, _ := burst("free-too", 100, []byte("x")); got[wire.Delivered] != 300 {
		t.Errorf("a tenant without limits: %v", got)
	}

	t.Log("a node less: the others have larger shares")
	c.stop(n3)
	c.state(n1, n3.ID(), raftfsm.Down)
	c.shares(n1, 2)
	if _, kick := c.enters(n1, "crowd", "third"); kick != nil {
		t.Errorf("a third at one of two nodes: %v %s", kick.Code, kick.Text)
	}
	if _, kick := c.enters(n1, "crowd", "fourth"); kick == nil || kick.Code != wire.Busy {
		t.Errorf("a fourth at one of two nodes: %+v", kick)
	}
}
