package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imroute/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a Backend whose answers are set by the test. The zero value answers zero values.
type fake struct {
	mu    sync.Mutex
	calls []string // guarded by mu
	args  []any    // guarded by mu: of the last call
	err   error    // guarded by mu: what every method returns

	ready    Readiness
	version  VersionInfo
	nodes    []Node
	node     NodeDetail
	status   ClusterStatus
	settings Settings
	token    JoinToken
	tokens   []JoinTokenInfo
	peers    RaftPeers
	transfer TransferResult
	verify   VerifyResult
	check    CheckResult
	upgrade  UpgradeResult
	snapshot SnapshotResult
	route    Route
	page     RoutePage
	stats    RouteStats
	groups   GroupPage
	services ServicePage
	online   PresenceCount
	members  GroupMembers
	groupEnd GroupClosed
	kicked   KickResult
	sent     SendResult
	ctoken   ClientToken
	assigned Assignment
	present  []Presence
	moving   Rebalance
	key      APIKey
	keys     []APIKeyInfo
	revoked  APIKeyRevoked

	onCall func(ctx context.Context) error // if set, runs in every method with a context
	onSend func(ctx context.Context, m Message) (SendResult, error)
	watch  func(ctx context.Context, q WatchQuery, emit func(RouteEvent) error) error
}

func (f *fake) called(ctx context.Context, name string, args ...any) error {
	f.mu.Lock()
	f.calls, f.args = append(f.calls, name), args
	err, on := f.err, f.onCall
	f.mu.Unlock()
	if on != nil {
		if err := on(ctx); err != nil {
			return err
		}
	}
	return err
}

func (f *fake) last() (string, []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return "", nil
	}
	return f.calls[len(f.calls)-1], f.args
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fake) Ready() Readiness     { return f.ready }
func (f *fake) Version() VersionInfo { return f.version }

func (f *fake) Nodes(ctx context.Context) ([]Node, error) { return f.nodes, f.called(ctx, "Nodes") }

func (f *fake) Node(ctx context.Context, ref string) (NodeDetail, error) {
	return f.node, f.called(ctx, "Node", ref)
}

func (f *fake) DrainNode(ctx context.Context, ref string, cancel bool) (Node, error) {
	return f.node.Node, f.called(ctx, "DrainNode", ref, cancel)
}

func (f *fake) LeaveNode(ctx context.Context, ref string) (Node, error) {
	return f.node.Node, f.called(ctx, "LeaveNode", ref)
}

func (f *fake) PromoteNode(ctx context.Context, ref string) (Node, error) {
	return f.node.Node, f.called(ctx, "PromoteNode", ref)
}

func (f *fake) DemoteNode(ctx context.Context, ref string) (Node, error) {
	return f.node.Node, f.called(ctx, "DemoteNode", ref)
}

func (f *fake) RemoveNode(ctx context.Context, ref string, force bool) error {
	return f.called(ctx, "RemoveNode", ref, force)
}

func (f *fake) ClusterStatus(ctx context.Context) (ClusterStatus, error) {
	return f.status, f.called(ctx, "ClusterStatus")
}

func (f *fake) Settings(ctx context.Context) (Settings, error) {
	return f.settings, f.called(ctx, "Settings")
}

func (f *fake) ChangeSettings(ctx context.Context, c SettingsChange) (Settings, error) {
	return f.settings, f.called(ctx, "ChangeSettings", c)
}

func (f *fake) CreateToken(ctx context.Context, ttl time.Duration) (JoinToken, error) {
	return f.token, f.called(ctx, "CreateToken", ttl)
}

func (f *fake) Tokens(ctx context.Context) ([]JoinTokenInfo, error) {
	return f.tokens, f.called(ctx, "Tokens")
}

func (f *fake) RevokeToken(ctx context.Context, id string) error {
	return f.called(ctx, "RevokeToken", id)
}

func (f *fake) RaftPeers(ctx context.Context) (RaftPeers, error) {
	return f.peers, f.called(ctx, "RaftPeers")
}

func (f *fake) TransferLeadership(ctx context.Context, to string) (TransferResult, error) {
	return f.transfer, f.called(ctx, "TransferLeadership", to)
}

func (f *fake) VerifyTables(ctx context.Context) (VerifyResult, error) {
	return f.verify, f.called(ctx, "VerifyTables")
}

func (f *fake) CheckRoutes(ctx context.Context, fix bool) (CheckResult, error) {
	return f.check, f.called(ctx, "CheckRoutes", fix)
}

func (f *fake) RaiseFeatureLevel(ctx context.Context) (UpgradeResult, error) {
	return f.upgrade, f.called(ctx, "RaiseFeatureLevel")
}

func (f *fake) TakeSnapshot(ctx context.Context) (SnapshotResult, error) {
	return f.snapshot, f.called(ctx, "TakeSnapshot")
}

func (f *fake) Route(ctx context.Context, q RouteQuery) (Route, error) {
	return f.route, f.called(ctx, "Route", q)
}

func (f *fake) Routes(ctx context.Context, q RouteListQuery) (RoutePage, error) {
	return f.page, f.called(ctx, "Routes", q)
}

func (f *fake) RouteStats(ctx context.Context) (RouteStats, error) {
	return f.stats, f.called(ctx, "RouteStats")
}

func (f *fake) WatchRoutes(ctx context.Context, q WatchQuery, emit func(RouteEvent) error) error {
	if err := f.called(ctx, "WatchRoutes", q); err != nil {
		return err
	}
	if f.watch == nil {
		<-ctx.Done()
		return nil
	}
	return f.watch(ctx, q, emit)
}

func (f *fake) Kick(ctx context.Context, c wire.ClientID, reason string) (KickResult, error) {
	return f.kicked, f.called(ctx, "Kick", c, reason)
}

func (f *fake) Groups(ctx context.Context, q GroupQuery) (GroupPage, error) {
	return f.groups, f.called(ctx, "Groups", q)
}

func (f *fake) Services(ctx context.Context, q GroupQuery) (ServicePage, error) {
	return f.services, f.called(ctx, "Services", q)
}

func (f *fake) PresenceCount(ctx context.Context, tenant *string) (PresenceCount, error) {
	return f.online, f.called(ctx, "PresenceCount", tenant)
}

func (f *fake) GroupMembers(ctx context.Context, t wire.Topic, q GroupQuery) (GroupMembers, error) {
	return f.members, f.called(ctx, "GroupMembers", t, q)
}

func (f *fake) CloseGroup(ctx context.Context, t wire.Topic, reason string) (GroupClosed, error) {
	return f.groupEnd, f.called(ctx, "CloseGroup", t, reason)
}

func (f *fake) Assign(ctx context.Context, q AssignQuery) (Assignment, error) {
	return f.assigned, f.called(ctx, "Assign", q)
}

func (f *fake) Presence(ctx context.Context, clients []wire.ClientID) ([]Presence, error) {
	return f.present[:min(len(clients), len(f.present))], f.called(ctx, "Presence", clients)
}

func (f *fake) Rebalance(ctx context.Context, rate uint32) (Rebalance, error) {
	return f.moving, f.called(ctx, "Rebalance", rate)
}

func (f *fake) CreateAPIKey(ctx context.Context, q NewAPIKey) (APIKey, error) {
	return f.key, f.called(ctx, "CreateAPIKey", q)
}

func (f *fake) APIKeys(ctx context.Context) ([]APIKeyInfo, error) {
	return f.keys, f.called(ctx, "APIKeys")
}

func (f *fake) RevokeAPIKey(ctx context.Context, id string) (APIKeyRevoked, error) {
	return f.revoked, f.called(ctx, "RevokeAPIKey", id)
}

func (f *fake) Send(ctx context.Context, m Message) (SendResult, error) {
	if err := f.called(ctx, "Send", m); err != nil {
		return SendResult{}, err
	}
	if f.onSend != nil {
		return f.onSend(ctx, m)
	}
	return f.sent, nil
}

func (f *fake) ClientToken(ctx context.Context, c wire.ClientID, ttl time.Duration, g TokenGrants) (ClientToken, error) {
	return f.ctoken, f.called(ctx, "ClientToken", c, ttl, g)
}

const testToken = "correct-horse-battery"

// logBuffer collects log lines as JSON objects.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns the log lines with this message.
func (l *logBuffer) lines(t *testing.T, msg string) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// start opens a server on loopback and closes it with the test. cfg may be nil.
func start(t testing.TB, b Backend, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{Bind: "127.0.0.1:0", Token: testToken, Backend: b}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func dial(t testing.TB, addrs ...string) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Addrs: addrs, Token: testToken, DialTimeout: 2 * time.Second, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// pair is a server with a client of it.
func pair(t testing.TB, b Backend) (*Server, *Client) {
	t.Helper()
	s := start(t, b, nil)
	return s, dial(t, s.Addr())
}

// raw sends a request without Client's help and returns status, body and header.
func raw(t testing.TB, s *Server, method, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.Addr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i < len(header); i += 2 {
		switch {
		case header[i] == "Host":
			req.Host = header[i+1]
		case header[i+1] == "":
			req.Header.Del(header[i])
		default:
			req.Header.Set(header[i], header[i+1])
		}
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: did not happen in time", what)
		}
	}
}
