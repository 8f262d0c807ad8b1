package cli

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with testdata/golden/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

var (
	node1 = admin.Node{
		Name: "n1", ID: 0xa1, Role: admin.RoleLeader, State: admin.StateUp, Incarnation: 3, Voter: true, Leader: true, AppliedIndex: 120, Clients: 7, Version: "v1",
		Addrs: wire.Addrs{Mesh: "10.0.0.1:7900", ClientTCP: "10.0.0.1:7901", ClientWS: "10.0.0.1:7902", Admin: "10.0.0.1:7903"},
	}
	node2 = admin.Node{Name: "node-two", ID: 0xa2, Role: admin.RoleVoter, State: admin.StateDown, Incarnation: 4, Voter: true, AppliedIndex: 99}
	bob   = admin.Route{
		Client: "bob", Found: true, Node: "n1", Incarnation: 3, NodeState: admin.StateUp, Session: "00000000000000aa.2", Epoch: wire.MakeEpoch(1, 17),
		Consistency: admin.Linearizable, Index: 121, Leader: "n1", OwnerCheck: admin.OwnerConfirmed,
		Nodes: []admin.RouteView{{Name: "n1", Found: true, Node: "n1", Incarnation: 3, Epoch: wire.MakeEpoch(1, 17), Index: 121}, {Name: "node-two", Error: "no answer"}},
	}
	status = admin.ClusterStatus{
		ClusterID: "00000000000000c1", Node: "n1", Leader: "n1", Term: 2, AppliedIndex: 121, Voters: 2, Quorum: 2, NodesUp: 1, NodesDown: 1, Routes: 1,
		FeatureLevel: 1, PossibleLevel: 1, HeldBackBy: []string{}, Settings: admin.Settings{DuplicateLogin: "replace", TargetVoters: 3}, Health: admin.HealthDegraded, Problems: []string{"node-two is down: start it"},
	}
)

func answers() map[string]any {
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	return map[string]any{
		"GET /v1/nodes":             []admin.Node{node1, node2},
		"GET /v1/nodes/n1":          admin.NodeDetail{Node: node1, Reachable: true, Detail: &admin.Detail{RaftState: "leader", Term: 2, LeaseLeftMS: 3500, Boot: 9, PeersUp: []string{}, PeersDown: []string{"node-two"}, StoreBytes: 3 << 20}},
		"GET /v1/nodes/node-two":    admin.NodeDetail{Node: node2},
		"POST /v1/nodes/n1/drain":   node1,
		"POST /v1/nodes/n1/promote": node1,
		"POST /v1/nodes/n1/demote":  node1,
		"GET /v1/cluster":           status,
		"GET /v1/cluster/settings":  status.Settings,
		"PUT /v1/cluster/settings":  status.Settings,
		"POST /v1/tokens":           admin.JoinToken{ID: "t1", Token: "imj1-abc", Expires: expires},
		"GET /v1/tokens":            []admin.JoinTokenInfo{{ID: "t1", Expires: expires}, {ID: "t2", Expires: expires, Expired: true}},
		"DELETE /v1/tokens/t1":      map[string]string{},
		"GET /v1/raft/peers":        admin.RaftPeers{Leader: "n1", Term: 2, CommitIndex: 121, ConfigIndex: 5, Peers: []admin.RaftPeer{{Name: "n1", ID: 0xa1, Mesh: "10.0.0.1:7900", Voter: true, Leader: true, State: "up", AppliedIndex: 121}}},
		"POST /v1/raft/transfer":    admin.TransferResult{From: "n1", Leader: "node-two", Term: 3},
		"POST /v1/raft/verify":      admin.VerifyResult{Index: 121, Agree: true, Nodes: []admin.VerifyNode{{Name: "n1", Index: 121, Hash: "ff00"}}},
		"POST /v1/raft/snapshot":    admin.SnapshotResult{Node: "n1", ID: "2-121", Index: 121, Bytes: 2048},
		"POST /v1/routes/check": admin.CheckResult{Clean: true, Nodes: []admin.NodeCheck{
			{Name: "n1", Index: 121, Rows: 7, Sessions: 7, Differences: []admin.Difference{}},
			{Name: "n3", Index: 121, Rows: 2, Sessions: 2, Repaired: 2, Differences: []admin.Difference{
				{Kind: admin.RowWithoutSession, Client: "bob", Epoch: 17, Repaired: true}, {Kind: admin.SessionWithoutRow, Client: "x", Tenant: "acme", Epoch: 18, Repaired: true},
			}},
		}},
		"POST /v1/cluster/upgrade":   admin.UpgradeResult{From: 1, Level: 2, HeldBackBy: []string{"n1"}},
		"GET /v1/routes/bob":         bob,
		"GET /v1/routes":             admin.RoutePage{Routes: []admin.RouteRow{{Client: "bob", Node: "n1", Incarnation: 3, Session: "aa.2", Epoch: 17}, {Client: "x", Tenant: "acme", Node: "n1"}}, Index: 121},
		"GET /v1/routes/stats":       admin.RouteStats{Routes: 2, Void: 1, ByNode: map[string]uint32{"n1": 2}, Pages: 1, Bytes: 65536, Index: 121},
		"POST /v1/routes/bob/kick":   admin.KickResult{Client: "bob", Node: "n1", Epoch: 17},
		"POST /v1/client-tokens":     admin.ClientToken{Client: "bob", Token: "ey.J.x", Expires: expires},
		"GET /v1/services":           admin.ServicePage{Services: []admin.ServiceRow{{Service: "clock", Nodes: []string{"n1", "n3"}, Instances: 3, Open: 1}}, Errors: []admin.NodeError{{Node: "n2", Error: "no answer"}}},
		"GET /v1/presence/count":     admin.PresenceCount{Clients: 3, Users: 2, Nodes: []admin.PresenceNode{{Node: "n1", Clients: 1, Users: 1}, {Node: "n2", Clients: 2, Users: 1}}, Index: 121},
		"GET /v1/version":            admin.VersionInfo{Version: "v1", Node: "n1", Go: "go1", OS: "linux", Arch: "amd64", ProtocolVersion: 1},
		"DELETE /v1/nodes/ignored":   map[string]string{},
		"POST /v1/nodes/never/leave": node1,
	}
}

// TestStaleRoutes: a node without a lease says how old its table may be.
func TestStaleRoutes(t *testing.T) {
	a := answers()
	page, stats := a["GET /v1/routes"].(admin.RoutePage), a["GET /v1/routes/stats"].(admin.RouteStats)
	page.Stale, stats.Stale = &admin.Stale{Node: "n1", LeaderHeardMS: 7300}, &admin.Stale{Node: "n1", LeaderHeardMS: -1}
	a["GET /v1/routes"], a["GET /v1/routes/stats"] = page, stats
	api := newFakeAPI(t, a)
	for args, want := range map[string][2]string{ // in its output, in its notes
		"route list":                {"bob ", "not current: n1 has no lease and heard a leader 7.3s ago"},
		"route list --output json":  {`"stale": true`, "not current: n1 has no lease"},
		"route stats":               {"not current:  n1 has no lease and has heard no leader since it started", ""},
		"route stats --output json": {`"leader_heard_ms": -1`, ""},
	} {
		code, out, errs := newWorld(t).run(append(strings.Fields(args), "--addr", api.addr())...)
		if code != 0 || !strings.Contains(out, want[0]) || !strings.Contains(errs, want[1]) || want[1] == "" && errs != "" {
			t.Errorf("%s: %d\n%s\n%s\nwant %q", args, code, out, errs, want)
		}
	}
}

// TestOutput checks what every command prints, as a table and as JSON.
func TestOutput(t *testing.T) {
	api := newFakeAPI(t, answers())
	for _, c := range []struct {
		name string
		args string
		code int
	}{
		{"node_list", "node list", 0},
		{"node_show", "node show n1", 0},
		{"node_show_unreachable", "node show node-two", 0},
		{"node_drain", "node drain n1", 0},
		{"node_drain_cancel", "node drain n1 --cancel", 0},
		{"node_promote", "node promote n1", 0},
		{"node_demote", "node demote n1 --yes", 0},
		{"cluster_status", "cluster status", ExitDegraded},
		{"cluster_health", "cluster health", ExitDegraded},
		{"cluster_settings", "cluster settings", 0},
		{"cluster_token_create", "cluster token create", 0},
		{"cluster_token_list", "cluster token list", 0},
		{"cluster_token_revoke", "cluster token revoke t1", 0},
		{"raft_peers", "raft peers", 0},
		{"raft_transfer", "raft transfer", 0},
		{"raft_verify", "raft verify", 0},
		{"raft_snapshot", "raft snapshot", 0},
		{"route_check", "route check --fix", 0},
		{"cluster_upgrade", "cluster upgrade", 0},
		{"route_get", "route get bob", 0},
		{"route_list", "route list", 0},
		{"route_stats", "route stats", 0},
		{"route_kick", "route kick bob", 0},
		{"service_list", "service list", 0},
		{"presence_count", "presence count", 0},
		{"client_token", "client token bob", 0},
	} {
		for _, format := range []string{outputTable, outputJSON} {
			t.Run(c.name+"_"+format, func(t *testing.T) {
				args := append(strings.Fields(c.args), "--addr", api.addr(), "--output", format)
				code, out, errs := newWorld(t).run(args...)
				if code != c.code || errs != "" {
					t.Errorf("exit code %d, want %d; errors %q", code, c.code, errs)
				}
				if format == outputJSON && !json.Valid([]byte(out)) {
					t.Errorf("not JSON: %s", out)
				}
				golden(t, c.name+"."+format, out)
			})
		}
	}
}

// TestExitCodes checks exit codes and error texts, for people and for programs.
func TestExitCodes(t *testing.T) {
	api := newFakeAPI(t, answers())
	api.refuse("GET /v1/routes/lost", 503, admin.StatusUnavailable, "no quorum", "start enough voters: see imctl cluster status")
	api.refuse("POST /v1/client-tokens", 401, admin.StatusUnauthorized, "the token is wrong", "")
	api.set("GET /v1/nodes", 200, []admin.Node{node1, node2})
	api.refuse("GET /v1/nodes/n9", 404, admin.StatusNotFound, "no node n9", "see imctl node list")
	api.refuse("GET /v1/nodes/secret", 401, admin.StatusUnauthorized, "the token is wrong", "")
	api.set("GET /v1/routes/nobody", http.StatusNotFound, admin.Route{Client: "nobody", Consistency: admin.Linearizable, Index: 7, Leader: "n1"})
	for _, c := range []struct {
		args     string
		code     int
		out, err string // contained
	}{
		{"route get lost", ExitNoQuorum, "", "imctl: unavailable: no quorum\nhint: start enough voters: see imctl cluster status\n"},
		{"route get lost -o json", ExitNoQuorum, "", `{"error":{"code":"unavailable","message":"unavailable: no quorum","hint":"start enough voters: see imctl cluster status","exit":4}}`},
		{"node show n9", ExitNotFound, "", "imctl: no node n9\n"},
		{"node show secret", ExitError, "", "give the cluster's admin token with --token"},
		{"route get nobody", ExitNotFound, "", "nobody has no route (linearizable read at index 7, confirmed by leader n1)"},
		{"route get nobody -o json", ExitNotFound, `"found": false`, `"code":"not_found"`},
		{"route get a*b", ExitError, "", "'*' is not allowed"},
		{"route get", ExitError, "", "CLIENT is missing\nhint: usage: imctl route get CLIENT"},
		{"route get bob carol", ExitError, "", `"carol" is too much`},
		{"route get bob --consistency fast", ExitError, "", "want linearizable or local"},
		{"rout get bob", ExitError, "", `unknown command "rout" for "imctl"` + "\nhint: did you mean \"imctl raft\" or \"imctl route\" or \"imctl group\"?"},
		{"route gte bob", ExitError, "", `did you mean "imctl route get"?`},
		{"frobnicate -o json", ExitError, "", `{"error":{"code":"usage","message":"unknown command \"frobnicate\" for \"imctl\"`},
		{"route get bob --consistancy local", ExitError, "", "did you mean --consistency?"},
		{"node list --output xml", ExitError, "", `--output "xml": want table or json`},
		{"node list --timeout 0s", ExitError, "", "--timeout must be more than 0"},
		{"client send hello", ExitError, "", "--to is missing"},
		{"client send --to bob --group tea hello", ExitError, "", "--to and --group: choose one"},
		{"client send --all --others hello", ExitError, "", "--all and --others: choose one"},
		{"presence count --tenant a:b", ExitError, "", "tenant: must not contain"},
		{"client send --to bob --ack maybe hello", ExitError, "", "want none, owner or client"},
		{"client connect --as bob --token eyJh", ExitError, "", "a client's own login token goes to --client-token"},
		{"client connect --as a/b/c", ExitError, "", "a single '/'"},
		{"node remove n1 --yes", ExitError, "", "n1 is alive (up)\nhint: let it leave with \"imctl node leave n1\", or add --force"},
		{"node remove n9 --yes", ExitNotFound, "", "there is no node n9"},
		{"node remove node-two", ExitError, "", "nobody is there to ask"},
		{"node demote n1", ExitError, "", "add --yes if you mean it"},
		{"version", ExitOK, "imctl dev (", ""},
		{"version --server", ExitOK, "node n1: v1", ""},
		{"help exit-codes", ExitOK, "4  no quorum", ""},
		{"help environment", ExitOK, "IMCTL_ADDR", ""},
		{"completion bash", ExitOK, "__start_imctl", ""},
		{"completion tcsh", ExitError, "", "want bash, zsh, fish or powershell"},
		{"__complete node show ", ExitOK, "n1\tleader, up", ""},
		{"__complete route get b", ExitOK, "bob\ton n1", ""},
		{"dev --nodes 0", ExitError, "", "want 1 to 15"},
	} {
		t.Run(c.args, func(t *testing.T) {
			w := newWorld(t)
			w.env["IMCTL_ADDR"] = api.addr()
			args := strings.Split(c.args, " ")
			code, out, errs := w.run(args...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.err) {
				t.Errorf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s\nwant %q and %q in them", code, c.code, out, errs, c.out, c.err)
			}
			if c.err != "" && strings.Contains(c.args, "json") && !json.Valid([]byte(errs)) {
				t.Errorf("the error is not JSON: %s", errs)
			}
		})
	}
}

// TestWithoutLeader: what may be out of date is said to be, and a node that may be dead is not called alive.
func TestWithoutLeader(t *testing.T) {
	api := newFakeAPI(t, nil)
	alone := node1
	alone.Leader, alone.Role = false, admin.RoleVoter
	api.set("GET /v1/nodes", 200, []admin.Node{alone, node2})
	lost := status
	lost.Health, lost.Leader = admin.HealthNoQuorum, ""
	api.set("GET /v1/cluster", 200, lost)
	for _, c := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"node list", ExitOK, "n1 ", "no leader is known at the moment"},
		{"node remove n1 --yes", ExitNoQuorum, "", "imctl: unavailable: no leader is known"},
		{"cluster status", ExitNoQuorum, "1 up, 1 down (as last agreed on", ""},
	} {
		code, out, errs := newWorld(t).run(append(strings.Fields(c.args), "--addr", api.addr())...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.err) || c.err == "" && errs != "" {
			t.Errorf("%s: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s\nwant %q and %q", c.args, code, c.code, out, errs, c.out, c.err)
		}
	}
}

// TestVerifyExits: differing tables are an error, missing answers a degraded cluster.
func TestVerifyExits(t *testing.T) {
	api := newFakeAPI(t, nil)
	w := newWorld(t)
	for _, c := range []struct {
		nodes []admin.VerifyNode
		code  int
	}{
		{[]admin.VerifyNode{{Name: "a", Hash: "1"}, {Name: "b", Hash: "2"}}, ExitError},
		{[]admin.VerifyNode{{Name: "a", Hash: "1"}, {Name: "b", Error: "down"}, {Name: "c", Hash: "1"}}, ExitDegraded},
		{[]admin.VerifyNode{{Name: "a", Hash: "1"}, {Name: "b", Error: "down"}, {Name: "c", Hash: "3"}}, ExitError},
	} {
		api.set("POST /v1/raft/verify", 200, admin.VerifyResult{Nodes: c.nodes})
		if code, _, errs := w.run("raft", "verify", "--addr", api.addr()); code != c.code {
			t.Errorf("%v: exit code %d, want %d: %s", c.nodes, code, c.code, errs)
		}
	}
}

// TestHealthExits: every health has its exit code, an unknown one is not ok.
func TestHealthExits(t *testing.T) {
	api := newFakeAPI(t, nil)
	w := newWorld(t)
	for health, want := range map[string]int{admin.HealthOK: ExitOK, admin.HealthDegraded: ExitDegraded, admin.HealthElecting: ExitDegraded, admin.HealthNoQuorum: ExitNoQuorum, "novel": ExitDegraded} {
		api.set("GET /v1/cluster", 200, admin.ClusterStatus{Health: health})
		for _, cmd := range []string{"status", "health"} {
			if code, _, errs := w.run("cluster", cmd, "--addr", api.addr()); code != want || errs != "" {
				t.Errorf("%s %s: exit code %d, want %d: %s", cmd, health, code, want, errs)
			}
		}
	}
}

// TestConfirm: destructive commands ask a person, and take only yes for yes.
func TestConfirm(t *testing.T) {
	api := newFakeAPI(t, answers())
	api.set("DELETE /v1/nodes/%30000000000000a2", 200, nil)
	api.set("DELETE /v1/nodes/00000000000000a2", 200, nil)
	for in, want := range map[string]int{"y\n": ExitOK, "YES\n": ExitOK, "n\n": ExitError, "\n": ExitError, "": ExitError, "yellow\n": ExitError} {
		w := newWorld(t)
		w.in, w.inTTY = in, true
		before := len(api.requests())
		code, _, errs := w.run("node", "remove", "node-two", "--addr", api.addr())
		if code != want || !strings.Contains(errs, "remove node-two (00000000000000a2) for good? [y/N]") {
			t.Errorf("%q: exit code %d, want %d: %s", in, code, want, errs)
		}
		if deleted := strings.Contains(strings.Join(api.requests()[before:], "\n"), "DELETE"); deleted != (want == ExitOK) {
			t.Errorf("%q: deleted: %v", in, deleted)
		}
	}
}

// TestLeaveAsksOthers: whether a node is gone is for the others to say; it may not have heard of it itself.
func TestLeaveAsksOthers(t *testing.T) {
	stays := newFakeAPI(t, nil)
	there := admin.Node{Name: "n2", ID: 0xa2, State: admin.StateUp, Addrs: wire.Addrs{Admin: stays.addr()}}
	stays.set("GET /v1/nodes", 200, []admin.Node{there})
	leaves := newFakeAPI(t, map[string]any{
		"GET /v1/nodes":    []admin.Node{node1, there}, // and says so for ever
		"GET /v1/nodes/n1": admin.NodeDetail{Node: node1}, "GET /v1/version": admin.VersionInfo{Node: "n1"},
		"POST /v1/nodes/00000000000000a1/leave": node1,
	})
	for _, args := range [][]string{{"n1"}, {}} { // without a name: the node that --addr names
		code, out, errs := newWorld(t).run(append([]string{"node", "leave", "--yes", "--addr", leaves.addr()}, args...)...)
		if code != ExitOK || out != "n1 has left the cluster\n" {
			t.Errorf("%v: exit code %d, %s%s", args, code, out, errs)
		}
	}
	if code, _, errs := newWorld(t).run("node", "leave", "--yes"); code != ExitError || !strings.Contains(errs, "which node leaves?") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

// TestPrintable: ids and payloads cannot steer the terminal.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"a\x1b[31mb": `a\u001b[31mb`, "ä€": "ä€", "x\ty": "x    y", "a\u202eb": `a\u202eb`, "\r": `\r`, "hi\nalice: pay": `hi\nalice: pay`, "a\u2028b\u2066": `a\u2028b\u2066`} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "bob", "a\x1b]0;x\a", "\xff\xfe", "\u009b31m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range printable(s) {
			if unprintable(r) {
				t.Fatalf("%q leaves %U", s, r)
			}
		}
	})
}
