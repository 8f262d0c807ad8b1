package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"imroute/mesh/wire"
)

// TestUsers: the count is what a naive one over all rows finds: users with one device, some, and more than a page holds, of several
// tenants, on several nodes, some of which have ended.
func TestUsers(t *testing.T) {
	d := newFSM(t, 3)
	rnd := rand.New(rand.NewPCG(7, 11))
	check := func(when string) {
		t.Helper()
		v := d.f.Grab()
		defer v.Close()
		all, at := map[wire.ClientID]bool{}, map[wire.NodeID]map[wire.ClientID]bool{}
		for c, r := range routesOf(d.f.table) {
			u := wire.ClientID{Tenant: c.Tenant, ID: c.User()}
			all[u] = true
			if at[r.Node] == nil {
				at[r.Node] = map[wire.ClientID]bool{}
			}
			at[r.Node][u] = true
		}
		want := map[wire.NodeID]int{}
		for node, users := range at {
			want[node] = len(users)
		}
		n, byNode, err := v.Users(t.Context())
		if err != nil || n != len(all) || !maps.Equal(byNode, want) {
			t.Errorf("%s: %d users, %v, %v; want %d, %v", when, n, byNode, err, len(all), want)
		}
		for _, tenant := range []string{"", "acme", "nobody"} {
			want := TenantCount{UsersAt: map[wire.NodeID]int{}, Routes: map[wire.NodeID]int{}}
			for u := range all {
				if u.Tenant == tenant {
					want.Users++
				}
			}
			for node, users := range at {
				for u := range users {
					if u.Tenant == tenant {
						want.UsersAt[node]++
					}
				}
			}
			for c, r := range routesOf(d.f.table) {
				if c.Tenant == tenant {
					want.Routes[r.Node]++
				}
			}
			got, err := v.Tenant(t.Context(), tenant)
			if err != nil || got.Users != want.Users || !maps.Equal(got.UsersAt, want.UsersAt) || !maps.Equal(got.Routes, want.Routes) {
				t.Errorf("%s, tenant %q: %+v, %v; want %+v", when, tenant, got, err, want)
			}
		}
	}
	check("nobody")
	for i := range 4000 {
		node := wire.NodeID(rnd.IntN(3) + 1)
		c := wire.ClientID{ID: fmt.Sprintf("u%d", rnd.IntN(2500)), Tenant: []string{"", "", "acme"}[rnd.IntN(3)]}
		if i%2 == 0 {
			c.ID += fmt.Sprintf("/d%d", rnd.IntN(4))
		}
		ops := []Op{{Kind: Register, Client: c, Session: wire.SessionID{Instance: uint64(i + 1), Attempt: 1}}}
		if i < 600 {
			ops = append(ops, reg(device(i)))
		}
		d.batch(node, ops...)
	}
	check("many")
	d.up(2, 2)
	check("a node restarted")
	for i := range 500 {
		d.batch(2, reg(device(10_000+i)))
	}
	check("one user on several nodes, in a directory of his own")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	v := d.f.Grab()
	defer v.Close()
	if _, _, err := v.Users(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("counted to the end: %v", err)
	}
}

func BenchmarkUsers(b *testing.B) {
	d := cluster(3)
	for i := range 300_000 {
		d.batch(wire.NodeID(i%3+1), reg(fmt.Sprintf("user%d/%d", i/2, i%2)))
	}
	b.ResetTimer()
	for b.Loop() {
		v := d.t.Grab(1)
		if n, _, err := v.Users(b.Context()); n != 150_000 || err != nil {
			b.Fatal(n, err)
		}
		v.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/300_000, "ns/route")
}
