package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"imroute/mesh"
	"imroute/mesh/lane"
	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/assign"
	"imroute/node/datadir"
	"imroute/node/gateway"
	"imroute/node/webhook"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// Node is one server of a cluster. New checks its configuration, Open starts everything, Wait returns when it has ended,
// Close ends it. Methods are safe for concurrent use once Open has returned.
type Node struct {
	cfg  Config
	log  *slog.Logger
	born time.Time

	// fixed by Open
	dir            *datadir.Dir
	id             wire.NodeID
	name           string
	secrets        *secrets
	fsm            *raftfsm.FSM
	endings        *endings
	store          *store.Store
	mesh           *mesh.Mesh
	gateway        *gateway.Gateway
	admin          *admin.Server
	lead           *lead
	leaderCall     *leaderCall
	reads          *rounds[wire.ClientID, located]
	router         *router
	metrics        nodeMetrics
	peers          *peerBook
	presence       *presence
	online         *onlineCount
	fights         *fights
	lineage        *lineageLayer
	journal        *journal                // nil: none is kept
	ca             atomic.Pointer[mesh.CA] // voters hold the cluster's CA key
	identity       atomic.Pointer[mesh.Identity]
	keyReads       keyReads
	adminCert      atomic.Pointer[tls.Certificate] // see admincert.go
	adminCertReady chan struct{}                   // closed once the first one is there, or is no longer waited for

	discovery   discovery // changed only by Open
	lease       leaseHolder
	admission   admission
	present     atomic.Pointer[life]
	lastUp      atomic.Uint64 // the incarnation of the last life
	drainIntent atomic.Bool
	leaving     atomic.Bool
	leaveAsked  atomic.Bool
	stopping    atomic.Bool                                   // no further life begins
	leaveNow    chan struct{}                                 // capacity 1
	checkNow    chan struct{}                                 // capacity 1: see checkSoon
	refused     chan struct{}                                 // capacity 1: see watchRemoval
	loads       atomic.Pointer[map[wire.NodeID]wire.NodeLoad] // as the leader spread them last
	loadsAt     atomic.Int64                                  // when that was
	picker      *assign.Picker                                // fixed by New
	rebalance   rebalance
	hook        *webhook.Sender // fixed by New; nil: none
	askers      askers          // fixed by New

	ready     chan struct{}
	readyOnce sync.Once
	ctx       context.Context
	stop      context.CancelCauseFunc
	group     *errgroup.Group
	ended     chan struct{}
	endErr    error
	closeOnce sync.Once
}

// New checks cfg; nothing is started or touched.
func New(cfg Config, log *slog.Logger) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	policy, err := assign.ParsePolicy(cfg.AssignPolicy)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: log, picker: assign.NewPicker(policy), rebalance: rebalance{wake: make(chan struct{}, 1)}, ready: make(chan struct{}), ended: make(chan struct{}), leaveNow: make(chan struct{}, 1), checkNow: make(chan struct{}, 1), refused: make(chan struct{}, 1)}
	if err := n.newWebhook(); err != nil {
		return nil, err
	}
	return n, nil
}

// Open starts the node and returns when its listeners listen. It does not wait for a cluster: see Ready. After an error
// nothing is left running.
func (n *Node) Open(ctx context.Context) (err error) {
	n.born = time.Now()
	n.ctx, n.stop = context.WithCancelCause(context.Background())
	n.group, _ = errgroup.WithContext(n.ctx)
	defer func() {
		if err != nil {
			n.shutdown(err)
		}
	}()
	// The lock of the data folder comes first: it proves that no other process is this node.
	if n.dir, err = datadir.Open(n.cfg.Data); err != nil {
		return err
	}
	n.id = n.dir.ID()
	n.log = n.log.With("id", n.id)
	if err := n.becomeMember(ctx); err != nil { // found, join, or remember
		return err
	}
	if err := n.checkMachine(); err != nil {
		return err
	}
	n.log.Info("starting", "name", n.name, "version", Version, "cluster", fmt.Sprintf("%016x", n.identity.Load().Cluster))

	n.lease.length, n.lease.margin = n.cfg.Timings.Lease, n.cfg.Timings.Margin
	n.fsm = raftfsm.NewFSM(raftfsm.FSMConfig{Logger: n.log, Fatal: n.fatal, EventBuffer: 4096, FeatureLevel: n.cfg.FeatureLevel})
	n.endings = newEndings(n.fsm)
	n.fights = newFights(n.cfg.TakeoverBurst, n.cfg.TakeoverEvery)
	n.router = &router{
		self: n.id, table: n.fsm, life: n.present.Load, lease: n.lease.likely,
		lane: n.laneTo, nameOf: n.nameOf, nacked: n.metrics.nacks.Add, read: func(ctx context.Context, c wire.ClientID) (located, error) { return n.reads.do(ctx, c) },
		pendings: newPendings(n.cfg.PendingMax), flows: flows{by: map[flowKey]*flow{}}, ctx: n.ctx,
		reaches: func(id wire.NodeID) bool { return id == n.id || n.mesh.Connected(id) },
	}
	n.router.local.r = n.router
	if n.hook != nil {
		n.router.undelivered = n.undelivered
		n.hook.Open()
	}
	n.openCasts()
	n.openPresence()
	if n.mesh, err = mesh.New(mesh.Config{
		Bind: n.cfg.Mesh.Bind, Listen: n.cfg.Host.listenPacket(), Identity: n.identity.Load(), ResetKey: n.dir.ResetKey(), Members: n.peers.member, Join: n.handleJoin, Elsewhere: n.peers.answered, Twin: n.twin, Refused: n.refusedBy,
		Lanes: n.cfg.Lanes, Lane: lane.Config{Handler: n.router, MaxPayload: n.cfg.MaxPayload}, Logger: n.log.With("part", "mesh"),
	}); err != nil {
		return err
	}
	n.leaderCall = &leaderCall{
		self: n.id, leader: func() (wire.NodeID, bool) { return n.store.Leader() }, call: n.mesh.Call,
		leaderChange: func(ctx context.Context, known store.Leadership) (store.Leadership, bool) {
			now, err := n.store.WaitLeadership(ctx, known)
			return now, err == nil
		},
	}
	n.reads = newRounds(n.ctx, func(ctx context.Context, clients []wire.ClientID) ([]located, error) {
		ctx, cancel := context.WithTimeout(ctx, n.cfg.Timings.Lease)
		defer cancel()
		return n.leaderCall.read(ctx, clients)
	})
	n.lead = newLead(n)
	n.lead.confirm.open(n.ctx)

	if n.journal, err = openJournal(n.cfg.Journal, n.log); err != nil {
		return err
	}
	if err := n.openGateway(ctx); err != nil {
		return err
	}
	if err := n.openLineage(); err != nil {
		return err
	}
	// Raft before the mesh: a peer's first message finds somebody to take it.
	if n.store, err = store.Open(store.Config{
		Dir: n.dir.RaftDir(), Local: n.id, FSM: n.fsm, Layer: n.lineage, Await: n.mesh.AwaitRaft, Logger: quieterLogger(n.log.With("part", "raft")),
		Heartbeat: n.cfg.Timings.Heartbeat, Election: n.cfg.Timings.Election, Fatal: n.fatal, RequireState: n.dir.LastBoot() > 0,
		StoreDeadline: n.cfg.DiskTimeout,
	}); err != nil {
		return err
	}
	if err := n.bootstrapRaft(); err != nil {
		return err
	}
	if err := n.openMetrics(); err != nil {
		return err
	}
	n.registerHandlers()
	if err := n.mesh.Open(); err != nil {
		return err
	}
	if err := n.announceMember(); err != nil {
		return err
	}
	if warning := n.mesh.BufferWarning(); warning != "" {
		n.log.Warn(warning)
	}
	n.adminCertReady = make(chan struct{})
	if err := n.openAdmin(); err != nil {
		return err
	}

	n.group.Go(func() error { n.router.run(n.ctx); return nil })
	sightings := n.fsm.Subscribe(0) // before anybody can watch
	n.group.Go(func() error { defer sightings.Close(); n.presence.run(n.ctx, sightings); return nil })
	n.group.Go(func() error { return n.lead.run(n.ctx) })
	n.group.Go(func() error { return n.endWith(n.runLives(n.ctx)) })
	n.group.Go(func() error { return n.runDrain(n.ctx) })
	n.group.Go(func() error { return n.runLeave(n.ctx) })
	n.group.Go(func() error { return n.runRebalance(n.ctx) })
	n.group.Go(func() error { return n.runPeers(n.ctx) })
	n.group.Go(func() error { return n.runRenewal(n.ctx) })
	if n.usesAdminCert() {
		n.group.Go(func() error { n.runAdminCert(n.ctx); return nil })
	}
	n.group.Go(func() error { return n.watchFolder(n.ctx) })
	return nil
}

// laneTo picks the lane by the recipient, so that messages to one recipient stay in order.
func (n *Node) laneTo(owner wire.NodeID, to wire.ClientID) *lane.Session {
	return n.mesh.Lane(owner, int(to.Hash()%uint64(n.mesh.Lanes())))
}

// endWith ends the node with what its lives ended with.
func (n *Node) endWith(err error) error {
	if errors.Is(err, errRemoved) {
		// The next start says so at once, instead of looking for a cluster that does not answer.
		if err := n.peers.removed(); err != nil {
			n.log.Error("keeping the list of members", "err", err)
		}
	}
	if n.leaving.Load() && errors.Is(err, errRemoved) {
		n.log.Info("left the cluster")
		err = errLeft
	}
	if err != nil {
		n.end(err)
	}
	return nil
}

// errLeft is the good end of a node that left.
var errLeft = errors.New("left the cluster")

// fail is fatal for use in a return statement.
func (n *Node) fail(err error) error {
	n.fatal(err)
	return err
}

// fatal ends the node: its disk or its state machine can no longer be trusted. Nothing is retried.
func (n *Node) fatal(err error) {
	n.log.Error("stopping: this node can no longer be trusted", "err", err)
	n.end(err)
}

// twin ends this process: it is not the only one that runs as this node, and together they could vote and deliver twice.
func (n *Node) twin(err error) {
	if n.ctx.Err() != nil {
		return // it is ending already
	}
	n.fatal(fmt.Errorf("%w: its data folder is a copy of this node's, or this one is a copy of its (%s): never run both; "+
		"delete the copy's folder and let it join as a new member with a token", err, n.cfg.Data))
}

// end makes Wait return; the first cause holds.
func (n *Node) end(err error) { n.stop(err) }

// Ready is closed once the node holds a lease and takes clients for the first time.
func (n *Node) Ready() <-chan struct{} { return n.ready }

func (n *Node) becameReady() {
	n.readyOnce.Do(func() {
		n.log.Info("ready", "mesh", n.Addrs().Mesh, "client_tcp", n.Addrs().ClientTCP, "client_ws", n.Addrs().ClientWS, "admin", n.Addrs().Admin)
		close(n.ready)
	})
}

// Wait returns when the node ended: nil after it left the cluster or was closed, otherwise why it had to stop. The caller
// still has to Close it.
func (n *Node) Wait() error {
	<-n.ctx.Done()
	err := context.Cause(n.ctx)
	if errors.Is(err, errLeft) || errors.Is(err, errClosed) {
		return nil
	}
	return err
}

var errClosed = errors.New("the node was closed")

// Close ends the node in the reverse order of Open: clients are told, what is on its way is ended with an answer. It
// returns when every goroutine has ended, or with an error when ctx ends first.
func (n *Node) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.shutdown(errClosed)
	}()
	select {
	case <-done:
		return n.endErr
	case <-ctx.Done():
		return fmt.Errorf("closing the node: %w", context.Cause(ctx))
	}
}

// closeWait bounds how long clients are waited for.
const closeWait = 5 * time.Second

func (n *Node) shutdown(why error) {
	n.closeOnce.Do(func() {
		var errs []error
		ctx, cancel := context.WithTimeout(context.Background(), closeWait)
		defer cancel()
		if n.gateway != nil {
			// Sessions first, while the leader can still be reached: their routes go at once.
			n.stopping.Store(true)
			err := n.gateway.Close(ctx)
			if err == nil {
				n.sayDown(ctx)
			}
			errs = append(errs, err)
		}
		if n.stop != nil { // nil: it was never opened
			n.stop(why)
		}
		errs = append(errs, n.discovery.close()) // nobody shall be sent here any more
		if n.admin != nil {
			errs = append(errs, n.admin.Close(ctx))
		}
		if n.group != nil && !endsWithin(closeWait, n.group) {
			// What is left waits for a disk that does not answer: the process has to end without it.
			n.endErr = errors.Join(append(errs, fmt.Errorf("what this node was doing did not end within %v", closeWait))...)
			close(n.ended)
			return
		}
		errs = append(errs, n.hook.Close(ctx)) // behind the last event, in what is left of the time
		n.askers.close()
		if n.reads != nil {
			n.reads.wait()
			n.lead.confirm.rounds.wait()
		}
		if n.store != nil {
			errs = append(errs, n.store.Close())
		}
		if n.mesh != nil {
			errs = append(errs, n.mesh.Close())
		}
		errs = append(errs, n.journal.close())
		if n.dir != nil {
			errs = append(errs, n.dir.Close())
		}
		n.endErr = errors.Join(errs...)
		close(n.ended)
	})
}

// endsWithin waits for everything in g, for d at most.
func endsWithin(d time.Duration, g *errgroup.Group) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	done := make(chan struct{})
	go func() {
		_ = g.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	}
}

// sayDown ends the last incarnation in the table, now that every session is closed: nobody has to wait for the lease. If nobody
// hears it, the lease runs out as it would after a crash. A node that stops because it cannot be trusted says it as well, for
// nobody has to trust it: it asks another node, the leader, to no longer count on it.
func (n *Node) sayDown(ctx context.Context) {
	last := wire.Incarnation(n.lastUp.Load())
	if last == 0 || n.leaderCall == nil || errors.Is(context.Cause(n.ctx), errLeft) || errors.Is(context.Cause(n.ctx), errRemoved) {
		return
	}
	n.lease.drop()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	cmd := &raftfsm.Command{Kind: raftfsm.KindNodeDown, Node: n.id, Incarnation: last}
	if _, err := n.leaderCall.propose(ctx, cmd); err != nil {
		n.log.Info("nobody heard that this node stops; its lease will run out", "err", err)
	}
}

// nameOf is a node's name for people, or its id.
func (n *Node) nameOf(id wire.NodeID) string {
	if node, ok := n.fsm.Node(id); ok {
		return node.Name
	}
	return id.String()
}

// heardLoads keeps what the leader spread about every node.
func (n *Node) heardLoads(loads []wire.NodeLoad) {
	m := make(map[wire.NodeID]wire.NodeLoad, len(loads))
	for _, v := range loads {
		m[v.Node] = v
	}
	n.loads.Store(&m)
	n.loadsAt.Store(int64(now()))
}

// Addrs is where this node can be reached, as advertised.
func (n *Node) Addrs() wire.Addrs {
	bound := n.Bound()
	return wire.Addrs{
		Mesh:      advertised(n.cfg.Mesh, bound.Mesh),
		ClientTCP: advertised(n.cfg.ClientTCP, bound.ClientTCP),
		ClientWS:  advertised(n.cfg.ClientWS, bound.ClientWS),
		Admin:     advertised(n.cfg.Admin, bound.Admin),
	}
}

// Bound is where this node listens on this machine, with the ports that the system chose where it was left to; valid after Open.
func (n *Node) Bound() wire.Addrs {
	tcp, ws := n.gateway.Addrs()
	return wire.Addrs{Mesh: n.mesh.Addr().String(), ClientTCP: tcp, ClientWS: ws, Admin: n.admin.Addr()}
}

// ID is the node's id; valid after Open.
func (n *Node) ID() wire.NodeID { return n.id }

// Name is the node's label; valid after Open.
func (n *Node) Name() string { return n.name }

// ClusterID names the cluster, sixteen hex digits; valid after Open.
func (n *Node) ClusterID() string { return fmt.Sprintf("%016x", n.identity.Load().Cluster) }

// AdminToken is the operators' bearer token; empty in development mode. Valid after Open.
func (n *Node) AdminToken() string {
	if n.cfg.Dev {
		return ""
	}
	return n.secrets.AdminToken
}

// Dev tells whether the cluster is in development mode; valid after Open.
func (n *Node) Dev() bool { return n.cfg.Dev }
