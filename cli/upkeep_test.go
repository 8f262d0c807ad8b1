package cli

import (
	"net/http"
	"strings"
	"testing"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

// TestCheckExits: a difference that is left, or a node that did not answer, is a degraded cluster.
func TestCheckExits(t *testing.T) {
	api := newFakeAPI(t, nil)
	w := newWorld(t)
	d := []admin.Difference{{Kind: admin.RowWithoutSession, Client: "bob", Epoch: 17}}
	for _, c := range []struct {
		r    admin.CheckResult
		args string
		code int
		err  string
		body string
	}{
		{admin.CheckResult{Clean: true, Nodes: []admin.NodeCheck{{Name: "n1"}}}, "", ExitOK, "", `{"fix":false}`},
		{admin.CheckResult{Nodes: []admin.NodeCheck{{Name: "n1", Differences: d}}}, "", ExitDegraded, "route check --fix", `{"fix":false}`},
		{admin.CheckResult{Nodes: []admin.NodeCheck{{Name: "n1", Differences: d, More: 3}}}, "--fix", ExitDegraded, "not everything is repaired", `{"fix":true}`},
		{admin.CheckResult{Nodes: []admin.NodeCheck{{Name: "n1", Error: "no answer"}}}, "-o json", ExitDegraded, `"exit":2`, `{"fix":false}`},
	} {
		api.set("POST /v1/routes/check", http.StatusOK, c.r)
		code, _, errs := w.run(append([]string{"route", "check", "--addr", api.addr()}, strings.Fields(c.args)...)...)
		asked := api.requests()
		if code != c.code || !strings.Contains(errs, c.err) || !strings.HasSuffix(asked[len(asked)-1], c.body) {
			t.Errorf("%+v %s: exit code %d, %q, asked %q", c.r, c.args, code, errs, asked[len(asked)-1])
		}
	}
}

// TestUpgradeRefused: the nodes that hold the others back are named.
func TestUpgradeRefused(t *testing.T) {
	api := newFakeAPI(t, nil)
	api.refuse("POST /v1/cluster/upgrade", 409, admin.StatusConflict, "the feature level stays 1: n3 can do no more", "upgrade these nodes")
	if code, _, errs := newWorld(t).run("cluster", "upgrade", "--addr", api.addr()); code != ExitError || !strings.Contains(errs, "n3 can do no more\nhint: upgrade") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	for _, c := range []struct {
		s    admin.ClusterStatus
		want string
	}{
		{admin.ClusterStatus{FeatureLevel: 1, PossibleLevel: 1}, "1"},
		{admin.ClusterStatus{FeatureLevel: 1, PossibleLevel: 2, HeldBackBy: []string{"n3"}}, "1, possible 2 (raise it with \"cluster upgrade\")"},
		{admin.ClusterStatus{FeatureLevel: 2, PossibleLevel: 2, HeldBackBy: []string{"n2", "n3"}}, "2, held back by n2, n3"},
		{admin.ClusterStatus{FeatureLevel: 2}, "2"},
	} {
		if got := levelText(c.s); got != c.want {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
	}
}

// TestDrainWait: progress until the node itself says that it has no clients, through moments in which it cannot say.
func TestDrainWait(t *testing.T) {
	api := newFakeAPI(t, answers())
	node := func(state string, clients uint32, reachable bool) admin.NodeDetail {
		return admin.NodeDetail{Node: admin.Node{Name: "n1", ID: 0xa1, State: state, Clients: clients, Addrs: wire.Addrs{}}, Reachable: reachable}
	}
	const path = "GET /v1/nodes/00000000000000a1"
	start := func(args ...string) (asked func(n int), end func() (int, string, string)) {
		type result struct {
			code      int
			out, errs string
		}
		done := make(chan result, 1)
		before := len(api.requests())
		go func() {
			code, out, errs := newWorld(t).run(append([]string{"node", "drain", "n1", "--wait", "--addr", api.addr()}, args...)...)
			done <- result{code, out, errs}
		}()
		return func(n int) {
			t.Helper()
			waitUntil(t, "it is asked", func() bool {
				k := 0
				for _, q := range api.requests()[before:] {
					if strings.HasPrefix(q, "GET /v1/nodes/") && strings.HasSuffix(q, "000000000000a1") { // the path may be escaped
						k++
					}
				}
				return k >= n
			})
		}, func() (int, string, string) { r := <-done; return r.code, r.out, r.errs }
	}
	api.set(path, http.StatusOK, node(admin.StateDraining, 0, false)) // what others think of it is not believed
	asked, end := start()
	asked(2)
	api.refuse(path, 503, admin.StatusUnavailable, "no leader", "") // nor is this the end
	asked(3)
	api.set(path, http.StatusOK, node(admin.StateDraining, 5, true))
	asked(5)
	api.set(path, http.StatusOK, node(admin.StateDraining, 0, true))
	if code, out, errs := end(); code != ExitOK || out != "n1 drains: 0 clients left\n" || errs != "n1: 5 clients left\nn1: 0 clients left\n" {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	api.set(path, http.StatusOK, node(admin.StateDraining, 5, true))
	_, end = start("--timeout", "300ms")
	if code, _, errs := end(); code != ExitError || !strings.Contains(errs, "n1 still has 5 clients after 300ms") || !strings.Contains(errs, "node drain n1 --wait") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	api.set(path, http.StatusOK, node(admin.StateUp, 5, true))
	_, end = start()
	if code, _, errs := end(); code != ExitError || !strings.Contains(errs, "was cancelled") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	api.set(path, http.StatusOK, node(admin.StateDown, 0, false))
	_, end = start()
	if code, _, errs := end(); code != ExitOK {
		t.Errorf("exit code %d, %q", code, errs)
	}
}
