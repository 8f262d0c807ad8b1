package node

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// ClusterStatus judges the whole as this node sees it.
func (a api) ClusterStatus(ctx context.Context) (admin.ClusterStatus, error) {
	n := a.n
	if err := n.isOut(); err != nil {
		return admin.ClusterStatus{}, err
	}
	voters := a.voters()
	leader, hasLeader := n.store.Leader()
	st := admin.ClusterStatus{
		ClusterID: fmt.Sprintf("%016x", n.identity.Load().Cluster), Node: n.name, Term: n.store.Term(), AppliedIndex: n.fsm.Applied(),
		Generation: n.fsm.Generation(), Voters: uint32(countTrue(voters)), Routes: uint32(n.fsm.Stats().Routes),
		FeatureLevel: n.fsm.FeatureLevel(), Settings: a.settings(), Health: admin.HealthOK, Problems: []string{},
	}
	st.Quorum = st.Voters/2 + 1
	levels := n.levels()
	st.PossibleLevel, st.HeldBackBy = levels.possible, append([]string{}, levels.heldBack...)
	problem := func(health, format string, args ...any) {
		if st.Health == admin.HealthOK || health == admin.HealthNoQuorum {
			st.Health = health
		}
		st.Problems = append(st.Problems, fmt.Sprintf(format, args...))
	}
	if hasLeader {
		st.Leader = n.nameOf(leader)
	}
	// A leader that is only remembered is no quorum: only a linearizable read proves one.
	try, cancel := context.WithTimeout(ctx, min(2*time.Second, n.cfg.Timings.Lease))
	_, err := n.prove(try)
	cancel()
	if err != nil && n.electing() {
		problem(admin.HealthElecting, "no leader answers, and there was one until less than %v ago: the voters elect another one. Logins and linearizable reads wait for that; if it goes on, there is no quorum", electionTime(n.cfg.Timings))
	} else if err != nil {
		problem(admin.HealthNoQuorum, "no quorum: %d of %d voters must be able to talk to each other; start the missing ones; if they run on other addresses than before, start one with --join ADDR of another; if a majority of them is lost for good, see `imctl raft recover --help`", st.Quorum, st.Voters)
	}
	votersDown, eligible := 0, 0
	open := 0
	for _, node := range n.fsm.Nodes() {
		if node.State == raftfsm.Down {
			st.NodesDown++
			if voters[node.ID] {
				votersDown++
			}
			problem(admin.HealthDegraded, "node %s is down: start it again, or take it out with `imctl node remove %s`", node.Name, node.Name)
			continue
		}
		st.NodesUp++
		if node.Role != raftfsm.RoleNonVoter {
			eligible++
		}
		if node.State == raftfsm.Draining {
			problem(admin.HealthDegraded, "node %s is draining: `imctl node drain %s --cancel` ends that", node.Name, node.Name)
		} else {
			open++
		}
	}
	if st.NodesUp > 0 && open == 0 {
		problem(admin.HealthDegraded, "no client can log in: every node that is up is draining")
	}
	if target := st.Settings.TargetVoters; st.Voters < target && eligible >= int(target) {
		problem(admin.HealthDegraded, "%d voters, %d are wanted and there are nodes enough: they are promoted as soon as they have caught up", st.Voters, target)
	} else if st.Voters == 2 {
		problem(admin.HealthDegraded, "two voters: if either stops, nothing can be agreed on; add a third node")
	}
	if left := int(st.Voters) - votersDown; votersDown > 0 && left == int(st.Quorum) {
		problem(admin.HealthDegraded, "no voter more may fail: %d of %d are there, %d are needed", left, st.Voters, st.Quorum)
	}
	for _, p := range n.discovery.foreign() {
		problem(admin.HealthDegraded, "another cluster, %016x (node %s, %s), announces itself under this cluster's name and secret: the network was split when they were founded; clients of one do not reach those of the other. Give one up: stop its nodes, empty their data folders and start them again, they then join the other", p.Cluster, p.Name, p.Mesh)
	}
	if n.askers.failing.Load() {
		problem(admin.HealthDegraded, "the login webhook fails at node %s: its log says why; clients are turned away until it answers", n.name)
	}
	if hook := n.hook.Stats(); hook.Failing {
		problem(admin.HealthDegraded, "the webhook fails at node %s, %d events wait: the log says why; it is tried again until it answers", n.name, hook.Queued)
	} else if d := hook.Dropped(); d > 0 {
		problem(admin.HealthDegraded, "node %s has dropped %d webhook events since it started: imroute_webhook_dropped_total says why", n.name, d)
	}
	if ready := a.Ready(); !ready.Ready && err == nil {
		problem(admin.HealthDegraded, "node %s is not ready: %s", n.name, strings.Join(ready.Reasons, ", "))
	}
	return st, nil
}

func (a api) settings() admin.Settings {
	s := a.n.fsm.Settings()
	return admin.Settings{DuplicateLogin: s.Duplicate.String(), OnePerClass: s.OnePerClass, TargetVoters: s.Voters}
}

func (a api) Settings(context.Context) (admin.Settings, error) { return a.settings(), nil }

// ChangeSettings reads, changes and writes; two operators at once may overwrite each other's different fields.
func (a api) ChangeSettings(ctx context.Context, c admin.SettingsChange) (admin.Settings, error) {
	s := a.n.fsm.Settings()
	if c.DuplicateLogin != nil {
		policy, err := raftfsm.ParseDuplicatePolicy(*c.DuplicateLogin)
		if err != nil {
			return admin.Settings{}, admin.Errorf(admin.StatusBadRequest, "duplicate_login: %v", err)
		}
		s.Duplicate = policy
	}
	if c.OnePerClass != nil {
		s.OnePerClass = *c.OnePerClass
	}
	if c.TargetVoters != nil {
		s.Voters = *c.TargetVoters
	}
	if _, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindSetSettings, Settings: s}); err != nil {
		return admin.Settings{}, err
	}
	return a.settings(), nil
}

func (a api) CreateToken(ctx context.Context, ttl time.Duration) (admin.JoinToken, error) {
	ca, err := mesh.CAHash(a.n.identity.Load().CAPEM)
	if err != nil {
		return admin.JoinToken{}, err
	}
	token := mesh.NewToken(ca)
	expires := time.Now().Add(ttl).Truncate(time.Second)
	if _, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindTokenCreate, ID: token.ID, Hash: token.Hash(), ExpiresUnix: expires.Unix()}); err != nil {
		return admin.JoinToken{}, err
	}
	return admin.JoinToken{ID: token.ID, Token: token.String(), Expires: expires.UTC()}, nil
}

func (a api) Tokens(context.Context) ([]admin.JoinTokenInfo, error) {
	out := []admin.JoinTokenInfo{}
	for _, t := range a.n.fsm.Tokens() {
		expires := time.Unix(t.ExpiresUnix, 0).UTC()
		out = append(out, admin.JoinTokenInfo{ID: t.ID, Expires: expires, Expired: time.Now().After(expires)})
	}
	return out, nil
}

func (a api) RevokeToken(ctx context.Context, id string) error {
	if _, _, ok := a.n.fsm.Token(id); !ok {
		return admin.Errorf(admin.StatusNotFound, "there is no join token %q", id).WithHint("`imctl cluster token list` shows them")
	}
	_, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindTokenRevoke, ID: id})
	return err
}

func (a api) RaftPeers(context.Context) (admin.RaftPeers, error) {
	n := a.n
	config, index, err := n.store.Members()
	if err != nil {
		return admin.RaftPeers{}, err
	}
	leader, ok := n.store.Leader()
	p := admin.RaftPeers{Term: n.store.Term(), CommitIndex: n.store.CommitIndex(), ConfigIndex: index, Peers: []admin.RaftPeer{}}
	if ok {
		p.Leader = n.nameOf(leader)
	}
	for _, m := range config {
		node, _ := n.fsm.Node(m.ID)
		d := a.describe(node, m.Voter, leader)
		p.Peers = append(p.Peers, admin.RaftPeer{
			Name: n.nameOf(m.ID), ID: m.ID, Mesh: node.Addrs.Mesh, Voter: m.Voter, Leader: m.ID == leader, State: d.State, AppliedIndex: d.AppliedIndex,
		})
	}
	return p, nil
}

func (a api) TransferLeadership(ctx context.Context, to string) (admin.TransferResult, error) {
	n := a.n
	var target wire.NodeID
	if to != "" {
		node, err := n.resolve(to)
		if err != nil {
			return admin.TransferResult{}, err
		}
		if !a.voters()[node.ID] {
			return admin.TransferResult{}, admin.Errorf(admin.StatusConflict, "%s is not a voter and cannot lead", node.Name).WithHint("`imctl node promote %s` first", node.Name)
		}
		target = node.ID
	}
	from, ok := n.store.Leader()
	if !ok {
		return admin.TransferResult{}, &wire.Error{Code: wire.Unavailable, Text: "there is no leader at the moment"}
	}
	if from == target {
		return admin.TransferResult{From: n.nameOf(from), Leader: n.nameOf(from), Term: n.store.Term()}, nil
	}
	if err := n.askAdmin(ctx, from, opTransfer, uint64(target), nil); err != nil {
		return admin.TransferResult{}, err
	}
	for {
		if leader, ok := n.store.Leader(); ok && leader != from {
			return admin.TransferResult{From: n.nameOf(from), Leader: n.nameOf(leader), Term: n.store.Term()}, nil
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return admin.TransferResult{}, admin.Errorf(admin.StatusTimeout, "no new leader was seen in time").WithHint("`imctl raft peers` shows who leads")
		}
	}
}

// VerifyTables marks an entry at which every table keeps itself as it is, and then has each node hash that.
func (a api) VerifyTables(ctx context.Context) (admin.VerifyResult, error) {
	n := a.n
	r, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNoop, Mark: true})
	if err != nil {
		return admin.VerifyResult{}, err
	}
	nodes := n.fsm.Nodes()
	v := admin.VerifyResult{Index: r.Index, Agree: true, Nodes: make([]admin.VerifyNode, len(nodes))}
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			v.Nodes[i] = admin.VerifyNode{Name: node.Name, Index: r.Index}
			try, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			var reply hashReply
			if err := n.ask(try, node.ID, wire.CallHash, hashRequest{Index: r.Index}, &reply); err != nil {
				v.Nodes[i].Error = err.Error()
				return
			}
			v.Nodes[i].Hash = fmt.Sprintf("%016x", reply.Hash)
		})
	}
	wg.Wait()
	for _, one := range v.Nodes {
		v.Agree = v.Agree && one.Error == "" && one.Hash == v.Nodes[0].Hash
	}
	return v, nil
}

type hashRequest struct {
	Index uint64 `cbor:"1,keyasint"`
}

type hashReply struct {
	Hash uint64 `cbor:"1,keyasint"`
}

// handleHash hashes the table as it was at a marked entry.
func (n *Node) handleHash(ctx context.Context, _ wire.NodeID, q *hashRequest) (*hashReply, error) {
	if err := n.fsm.WaitApplied(ctx, q.Index); err != nil {
		return nil, wire.Errorf(wire.Timeout, "this node has applied %d so far", n.fsm.Applied())
	}
	view := n.fsm.TakeMark(q.Index)
	if view == nil {
		return nil, wire.Errorf(wire.NotReady, "the table was not kept at %d: it was restored from a snapshot or another check ran; try again", q.Index)
	}
	defer view.Close()
	return &hashReply{Hash: view.Hash()}, nil
}

// TakeSnapshot writes one on this node.
func (a api) TakeSnapshot(ctx context.Context) (admin.SnapshotResult, error) {
	if err := a.n.store.Snapshot(ctx); err != nil {
		return admin.SnapshotResult{}, err
	}
	st := a.n.store.Stats()
	return admin.SnapshotResult{
		Node: a.n.name, ID: strconv.FormatUint(st.SnapshotTerm, 10) + "-" + strconv.FormatUint(st.SnapshotIndex, 10), Index: st.SnapshotIndex, Bytes: uint64(st.SnapshotBytes),
	}, nil
}
