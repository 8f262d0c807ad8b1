package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// api is the node as its admin server sees it. Methods that another node has to answer go there by CallAdmin.
type api struct{ n *Node }

var _ admin.Backend = api{}

// errNoNode: ref names no member.
func errNoNode(ref string) error {
	return admin.Errorf(admin.StatusNotFound, "there is no node %q in this cluster", ref).WithHint("`imctl node list` shows the names")
}

// known fails while this node has applied nothing yet: its table would say that there is nobody and nothing.
func (n *Node) known() error {
	if err := n.isOut(); err != nil {
		return err
	}
	if n.fsm.ClusterID() != 0 {
		return nil
	}
	return admin.Errorf(admin.StatusUnavailable, "this node has not caught up with the cluster since it started: it hears of no leader").
		WithHint("start enough voters to have a majority; if all addresses have changed, start nodes with --join ADDR of another one")
}

// resolve finds a member by name or id.
func (n *Node) resolve(ref string) (raftfsm.Node, error) {
	if err := n.known(); err != nil {
		return raftfsm.Node{}, err
	}
	if node, ok := n.fsm.NodeByName(ref); ok {
		return node, nil
	}
	if id, err := wire.ParseNodeID(ref); err == nil {
		if node, ok := n.fsm.Node(id); ok {
			return node, nil
		}
	}
	return raftfsm.Node{}, errNoNode(ref)
}

// propose is for the API's commands: they are all safe to repeat, and a refusal by the state machine is a conflict.
func (a api) propose(ctx context.Context, cmd *raftfsm.Command) (raftfsm.Result, error) {
	r, err := a.n.leaderCall.propose(ctx, cmd)
	if err != nil {
		return r, err
	}
	switch r.Code {
	case wire.OK:
	case wire.NotMember:
		return r, errNoNode(cmd.Node.String())
	case wire.BadRequest:
		return r, admin.Errorf(admin.StatusBadRequest, "%s", r.Text)
	default:
		return r, admin.Errorf(admin.StatusConflict, "%s", r.Text)
	}
	// Whoever reads at this node next sees it.
	return r, a.n.fsm.WaitApplied(ctx, r.Index)
}

func (a api) Ready() admin.Readiness {
	var why []string
	n := a.n
	if err := n.isOut(); err != nil {
		why = append(why, err.Error())
	}
	if _, ok := n.store.Leader(); !ok && n.electing() {
		why = append(why, "electing: no leader is known at the moment")
	} else if !ok {
		why = append(why, "no quorum: no leader is known")
	}
	switch l := n.present.Load(); {
	case l == nil:
		why = append(why, "not caught up: this node has not come up in the cluster yet")
	case !n.lease.holds(now()):
		why = append(why, "no lease: this node may not deliver at the moment")
	}
	if n.drainIntent.Load() {
		why = append(why, "draining")
	}
	if free, err := n.dir.Free(); err != nil {
		why = append(why, "disk: "+err.Error())
	} else if free < n.cfg.MinFreeDisk {
		why = append(why, fmt.Sprintf("disk nearly full: %d MiB free, want %d", free>>20, n.cfg.MinFreeDisk>>20))
	}
	return admin.Readiness{Ready: len(why) == 0, Reasons: append([]string{}, why...)}
}

func (a api) Version() admin.VersionInfo {
	return admin.VersionInfo{
		Version: Version, Commit: commit(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Node: a.n.name,
		FeatureLevel: a.n.cfg.FeatureLevel, ProtocolVersion: wire.ProtocolVersion,
	}
}

// Nodes lists the members with what was last heard of them.
func (a api) Nodes(context.Context) ([]admin.Node, error) {
	if err := a.n.known(); err != nil {
		return nil, err
	}
	voters := a.voters()
	leader, _ := a.n.store.Leader()
	out := []admin.Node{}
	for _, node := range a.n.fsm.Nodes() {
		out = append(out, a.describe(node, voters[node.ID], leader))
	}
	return out, nil
}

func (a api) voters() map[wire.NodeID]bool {
	voters := map[wire.NodeID]bool{}
	config, _, err := a.n.store.Members()
	if err != nil {
		return voters
	}
	for _, m := range config {
		voters[m.ID] = m.Voter
	}
	return voters
}

func (a api) describe(node raftfsm.Node, voter bool, leader wire.NodeID) admin.Node {
	d := admin.Node{
		Name: node.Name, ID: node.ID, Role: admin.RoleNonVoter, State: node.State.String(), Incarnation: node.Incarnation,
		Voter: voter, Leader: node.ID == leader, Version: node.Version, Addrs: node.Addrs,
	}
	if node.Role == raftfsm.RoleRemoved && node.State != raftfsm.Down {
		d.State = admin.StateRemoving
	}
	switch {
	case d.Leader:
		d.Role = admin.RoleLeader
	case voter:
		d.Role = admin.RoleVoter
	}
	if node.ID == a.n.id {
		d.Clients, d.AppliedIndex = uint32(a.n.gateway.Count()), a.n.fsm.Applied()
	} else if loads := a.n.loads.Load(); loads != nil && node.State != raftfsm.Down {
		v := (*loads)[node.ID]
		d.Clients, d.AppliedIndex = uint32(v.Clients), v.Applied
	}
	return d
}

func (a api) one(node raftfsm.Node) admin.Node {
	leader, _ := a.n.store.Leader()
	if fresh, ok := a.n.fsm.Node(node.ID); ok {
		node = fresh
	}
	return a.describe(node, a.voters()[node.ID], leader)
}

// Node asks the node itself.
func (a api) Node(ctx context.Context, ref string) (admin.NodeDetail, error) {
	node, err := a.n.resolve(ref)
	if err != nil {
		return admin.NodeDetail{}, err
	}
	d := admin.NodeDetail{Node: a.one(node)}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var inside admin.Detail
	if err := a.n.askAdmin(ctx, node.ID, opDetail, nil, &inside); err == nil {
		d.Reachable, d.Detail, d.Clients = true, &inside, inside.Clients
	}
	return d, nil
}

// detail is the inside of this node.
func (n *Node) detail() *admin.Detail {
	st, fsm := n.store.Stats(), n.fsm.Stats()
	gw := n.gateway.Stats()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	free, _ := n.dir.Free()
	d := &admin.Detail{
		Clients:   uint32(n.gateway.Count()),
		RaftState: raftState(st.State), Term: st.Term, CommitIndex: st.CommitIndex, LastLogIndex: st.LastLog, SnapshotIndex: st.SnapshotIndex,
		LeaseLeftMS: int32(max(n.lease.left(now()).Milliseconds(), -1<<31)), UptimeSeconds: uint32(time.Since(n.born).Seconds()),
		PeersUp: []string{}, PeersDown: []string{},
		StoreBytes: uint64(st.StoreBytes), FsyncP99US: uint32(st.Fsync.Quantile(.99).Microseconds()), FreeDiskBytes: free,
		Routes: uint32(fsm.Routes), Logins: gw.Logins[wire.OK], Sends: gw.MessagesIn, Goroutines: uint32(runtime.NumGoroutine()), HeapBytes: mem.HeapAlloc,
	}
	if self, ok := n.fsm.Node(n.id); ok {
		d.Boot = uint64(self.Boot)
	}
	for _, node := range n.fsm.Nodes() {
		switch {
		case node.ID == n.id:
		case n.mesh.Connected(node.ID):
			d.PeersUp = append(d.PeersUp, node.Name)
		default:
			d.PeersDown = append(d.PeersDown, node.Name)
		}
	}
	return d
}

func (a api) DrainNode(ctx context.Context, ref string, cancel bool) (admin.Node, error) {
	node, err := a.n.resolve(ref)
	if err != nil {
		return admin.Node{}, err
	}
	if _, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeDrain, Node: node.ID, Cancel: cancel}); err != nil {
		return admin.Node{}, err
	}
	return a.one(node), nil
}

// LeaveNode makes the node itself go.
func (a api) LeaveNode(ctx context.Context, ref string) (admin.Node, error) {
	node, err := a.n.resolve(ref)
	if err != nil {
		return admin.Node{}, err
	}
	if !slices.ContainsFunc(a.n.fsm.Nodes(), func(v raftfsm.Node) bool { return v.ID != node.ID && v.State != raftfsm.Down }) {
		return admin.Node{}, admin.Errorf(admin.StatusConflict, "%s is the last node that is up: there is no cluster left to leave", node.Name).
			WithHint("stop its process and delete its data folder instead")
	}
	if _, err := a.n.prove(ctx); err != nil { // or it would leave unasked once there is a quorum again
		return admin.Node{}, err
	}
	if err := a.n.askAdmin(ctx, node.ID, opLeave, nil, nil); err != nil {
		if node.State == raftfsm.Down {
			return admin.Node{}, admin.Errorf(admin.StatusConflict, "%s is down and cannot leave by itself", node.Name).WithHint("`imctl node remove %s` takes a dead node out", node.Name)
		}
		return admin.Node{}, err
	}
	return a.one(node), nil
}

func (a api) PromoteNode(ctx context.Context, ref string) (admin.Node, error) {
	return a.setRole(ctx, ref, raftfsm.RoleVoter)
}

func (a api) DemoteNode(ctx context.Context, ref string) (admin.Node, error) {
	return a.setRole(ctx, ref, raftfsm.RoleNonVoter)
}

// setRole records what the operator wants; the leader's upkeep does it.
func (a api) setRole(ctx context.Context, ref string, role raftfsm.Role) (admin.Node, error) {
	node, err := a.n.resolve(ref)
	if err != nil {
		return admin.Node{}, err
	}
	voters := a.voters()
	if role == raftfsm.RoleVoter && node.State == raftfsm.Down {
		return admin.Node{}, admin.Errorf(admin.StatusConflict, "%s is down and cannot become a voter", node.Name).WithHint("start it first")
	}
	if role == raftfsm.RoleNonVoter && voters[node.ID] && countTrue(voters) == 1 {
		return admin.Node{}, admin.Errorf(admin.StatusConflict, "%s is the last voter", node.Name).WithHint("promote another node first: imctl node promote NAME")
	}
	if _, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeRole, Node: node.ID, Role: role}); err != nil {
		return admin.Node{}, err
	}
	for a.voters()[node.ID] != (role == raftfsm.RoleVoter) {
		if !sleep(ctx, 50*time.Millisecond) {
			return admin.Node{}, admin.Errorf(admin.StatusTimeout, "%s was asked to change its role; the change is not through yet", node.Name).WithHint("`imctl node list` shows when it is")
		}
	}
	return a.one(node), nil
}

func countTrue(m map[wire.NodeID]bool) (n int) {
	for _, v := range m {
		if v {
			n++
		}
	}
	return n
}

// RemoveNode takes a dead node out; with force a live one as well: it gets no lease any more, and is out when its last has run out.
func (a api) RemoveNode(ctx context.Context, ref string, force bool) error {
	if err := a.n.refresh(ctx); err != nil { // whether it is down is not a question of how far this table has come
		return err
	}
	node, err := a.n.resolve(ref)
	if err != nil {
		return err
	}
	if node.State != raftfsm.Down && !force {
		return admin.Errorf(admin.StatusConflict, "%s is %s", node.Name, node.State).
			WithHint("let it go by itself with `imctl node leave %s`; if it hangs or cannot be reached, wait until it is down or use --force", node.Name)
	}
	voters := a.voters()
	if voters[node.ID] && countTrue(voters) == 1 {
		return admin.Errorf(admin.StatusConflict, "%s is the last voter: without it nothing can be agreed on any more", node.Name).WithHint("promote another node first: imctl node promote NAME")
	}
	// From here on it is the cluster's business, whoever leads and whether or not somebody waits here: see planMembership.
	if _, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindNodeRole, Node: node.ID, Role: raftfsm.RoleRemoved}); err != nil {
		return err
	}
	for !a.n.fsm.Removed(node.ID) && (node.ID != a.n.id || a.n.isOut() == nil && !a.n.isForgotten(ctx)) {
		if !sleep(ctx, 50*time.Millisecond) {
			return admin.Errorf(admin.StatusTimeout, "%s is being removed and gone once its lease has run out; it is not yet", node.Name).WithHint("`imctl node list` shows when it is")
		}
	}
	return nil
}

// isForgotten asks the others whether this node is out: the entry that says so may never come here, because they cut it off.
func (n *Node) isForgotten(ctx context.Context) bool {
	cmd, err := raftfsm.Encode(&raftfsm.Command{Kind: raftfsm.KindNodeRemove, Node: n.id}) // refused while it is up
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTry)
	defer cancel()
	var reply wire.ProposeReply
	if err := n.leaderCall.once(ctx, wire.CallPropose, wire.ProposeRequest{Command: cmd}, &reply); err != nil {
		return errors.Is(err, mesh.ErrNotMember)
	}
	if reply.Code != wire.OK {
		return false
	}
	r, err := raftfsm.DecodeResult(reply.Result)
	return err == nil && r.Code == wire.OK
}

// The operators' requests that a certain node has to answer.
const (
	opDetail   = "detail"
	opLeave    = "leave"
	opTransfer = "transfer"
	opView     = "view"
	opWhere    = "where"
	opCheck    = "check"
	opKeyGone  = "key-gone"
)

type adminRequest struct {
	Op  string `cbor:"1,keyasint"`
	Arg []byte `cbor:"2,keyasint,omitempty"` // JSON
}

type adminReply struct {
	Result []byte `cbor:"1,keyasint,omitempty"` // JSON
}

// askAdmin asks another node, or this one.
func (n *Node) askAdmin(ctx context.Context, to wire.NodeID, op string, arg, result any) error {
	q := adminRequest{Op: op}
	if arg != nil {
		b, err := json.Marshal(arg)
		if err != nil {
			return err
		}
		q.Arg = b
	}
	var r adminReply
	if err := n.ask(ctx, to, wire.CallAdmin, q, &r); err != nil {
		return fmt.Errorf("node %s: %w", n.nameOf(to), err)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(r.Result, result)
}

// handOverTries is how often leadership is offered: Raft gives up when the other one has not won within an election time-out,
// which a busy machine may well take, and both go on as before.
const handOverTries = 3

func (n *Node) handOver(ctx context.Context, to wire.NodeID) (err error) {
	for range handOverTries {
		if err = n.store.TransferLeadership(ctx, to); err == nil || errors.Is(err, store.ErrNoTarget) || !n.store.IsLeader() {
			return err
		}
		n.log.Info("leadership was not taken over", "err", err)
		if !sleep(ctx, 100*time.Millisecond) {
			break
		}
	}
	return err
}

func (n *Node) handleAdmin(ctx context.Context, from wire.NodeID, q *adminRequest) (*adminReply, error) {
	var result any
	switch q.Op {
	case opDetail:
		result = n.detail()
	case opLeave:
		if err := n.askedToLeave(from); err != nil {
			return nil, err
		}
	case opTransfer:
		var to uint64 // 0: any voter, which a NodeID's text cannot say
		if err := json.Unmarshal(q.Arg, &to); err != nil {
			return nil, wire.Errorf(wire.BadRequest, "node id: %v", err)
		}
		if !n.store.IsLeader() {
			return nil, wire.Errorf(wire.NotLeader, "not the leader")
		}
		if err := n.handOver(ctx, wire.NodeID(to)); err != nil {
			return nil, wire.Errorf(wire.Refused, "%v", err)
		}
	case opWhere:
		var addr string
		if err := json.Unmarshal(q.Arg, &addr); err != nil {
			return nil, wire.Errorf(wire.BadRequest, "address: %v", err)
		}
		n.peers.answered(from, addr)
		result = n.peers.addrs()
	case opCheck:
		r, err := n.handleCheck(ctx, q.Arg)
		if err != nil {
			return nil, err
		}
		result = r
	case opKeyGone:
		if err := n.handleKeyGone(ctx, q.Arg); err != nil {
			return nil, err
		}
	case opRebalance:
		var ask rebalanceAsk
		if err := json.Unmarshal(q.Arg, &ask); err != nil {
			return nil, wire.Errorf(wire.BadRequest, "rebalance: %v", err)
		}
		result = n.rebalanceHere(ask)
	case opGroupCounts, opGroupMembers, opGroupClose, opServiceCounts:
		said, err := n.handleGroup(q.Op, q.Arg)
		if err != nil {
			return nil, err
		}
		result = said
	case opAges:
		ages, err := n.handleAges(q.Arg)
		if err != nil {
			return nil, err
		}
		result = ages
	case opView:
		var c wire.ClientID
		if err := json.Unmarshal(q.Arg, &c); err != nil {
			return nil, wire.Errorf(wire.BadRequest, "client: %v", err)
		}
		result = n.localView(c)
	default:
		return nil, wire.Errorf(wire.BadRequest, "operation %q is not known: is this node older than the one that asks?", q.Op)
	}
	b, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	return &adminReply{Result: b}, nil
}

// openAdmin starts the API.
func (n *Node) openAdmin() (err error) {
	cfg := admin.Config{
		Bind: n.cfg.Admin.Bind, DevMode: n.cfg.Dev, Backend: api{n}, Logger: n.log.With("part", "admin"), MaxPayload: n.cfg.MaxPayload,
		Metrics: n.metrics.handler(n.log),
		Listen:  func(network, addr string) (net.Listener, error) { return n.cfg.Host.listen()(n.ctx, network, addr) },
	}
	if !n.cfg.Dev {
		cfg.Token, cfg.KeyCheck, cfg.KeyCatchUp = n.secrets.AdminToken, n.checkKey, n.catchUpForKey
	}
	if cfg.TLS, err = n.adminTLS(); err != nil {
		return err
	}
	if n.admin, err = admin.New(cfg); err != nil {
		return err
	}
	return n.admin.Open()
}

func raftState(s string) string {
	states := map[string]string{"Follower": "follower", "Candidate": "candidate", "Leader": "leader"}
	if v, ok := states[s]; ok {
		return v
	}
	return "shutdown"
}
