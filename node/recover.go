package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

// RecoverConfig says how to recover a stopped node after a majority of the voters was lost for good.
type RecoverConfig struct {
	// Data is the node's data folder. Required.
	Data string
	// Peers are the members that are left, this node among them. Required, and the same on each of them.
	Peers []RecoverPeer
	// Generation is the one to begin. Default (0): the one after the table's. It matters only if survivors name different
	// ones: then the highest goes for all.
	Generation uint16
	// Confirm is told what is about to happen before anything is written; an error of it ends Recover with nothing done.
	// Nil: go on.
	Confirm func(RecoverPlan) error
	// Logger may be nil.
	Logger *slog.Logger
}

// RecoverPeer is a member that is left.
type RecoverPeer struct {
	Node  string // name or id
	Voter bool
}

// RecoverNode is a member as the recovered table knows it.
type RecoverNode struct {
	ID    wire.NodeID `json:"id"`
	Name  string      `json:"name"`
	Voter bool        `json:"voter"`
	Mesh  string      `json:"mesh"`
}

// RecoverPlan is what a recovery makes of a data folder.
type RecoverPlan struct {
	Cluster    string        `json:"cluster"`    // sixteen hex digits
	Node       RecoverNode   `json:"node"`       // whose folder it is
	Generation uint16        `json:"generation"` // that is begun
	Recovery   string        `json:"recovery"`   // must be the same on all survivors: sixteen hex digits
	Index      uint64        `json:"index,string"`
	Term       uint64        `json:"term,string"` // of the last entry
	Routes     int           `json:"routes"`      // that become void
	Keep       []RecoverNode `json:"keep"`        // the new Raft configuration
	Lose       []RecoverNode `json:"lose"`        // members of the table that are left out; Voter: they were one
	CAKey      bool          `json:"ca_key"`      // this node can sign the certificates of joiners
}

// Errors of Recover that a person cures in different ways; compare with errors.Is.
var (
	ErrRecoverRunning = errors.New("the node is running")
	ErrRecoverPeers   = errors.New("the peers do not fit")
)

// Recover makes the node in a stopped data folder a member of a cluster of cfg.Peers alone, without asking the members that
// are lost. What they agreed upon and this node had not received is lost; what it had received takes effect even if no
// majority had it. At its next start the first leader begins a new generation, which takes every node down and voids every
// route: clients log in again, and epochs are above all former ones.
//
// It has to be run on every node of cfg.Peers before any of them is started. Interrupted, it can be run again.
func Recover(cfg RecoverConfig) (plan RecoverPlan, err error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	switch there, err := datadir.Exists(cfg.Data); { // opening it would make one
	case err != nil:
		return plan, fmt.Errorf("data folder %s: %w", cfg.Data, err)
	case !there:
		return plan, fmt.Errorf("%s is not the data folder of a node: name the folder that the node is started with", cfg.Data)
	}
	dir, err := datadir.Open(cfg.Data)
	if errors.Is(err, datadir.ErrInUse) {
		return plan, fmt.Errorf("%w, and only a stopped one can be recovered: %w", ErrRecoverRunning, err)
	} else if err != nil {
		return plan, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	former, err := dir.Recovered()
	if err != nil {
		return plan, err
	}
	ids, err := rosterOf(cfg.Peers, dir)
	if err != nil {
		return plan, err
	}
	fsm := raftfsm.NewFSM(raftfsm.FSMConfig{Logger: log, Fatal: func(error) {}}) // its error comes back through the store
	var recovered datadir.Recovered
	_, err = store.Recover(store.Config{Dir: dir.RaftDir(), Local: dir.ID(), FSM: fsm, Logger: quieterLogger(log)}, ids, func(found store.Found) error {
		if plan, err = makePlan(cfg, dir, fsm, found, ids); err != nil {
			return err
		}
		// An interrupted recovery goes on under its number. Any other one gets a number of its own: the cluster of the former
		// may have given out epochs in it that never reached this table.
		if cfg.Generation == 0 && former.Generation >= plan.Generation {
			if plan.Generation = former.Generation; recoveryMark(plan) != former.Mark {
				plan.Generation++
			}
		}
		recovered = datadir.Recovered{Generation: plan.Generation, Mark: recoveryMark(plan)}
		if recovered.Generation < former.Generation {
			return fmt.Errorf("%w: this node belongs to generation %d already: give --generation %d, or a higher one, on all survivors", ErrRecoverPeers, former.Generation, former.Generation+1)
		}
		plan.Recovery = fmt.Sprintf("%016x", recovered.Mark)
		if cfg.Confirm != nil {
			if err := cfg.Confirm(plan); err != nil {
				return err
			}
		}
		// Before the snapshot: with the new configuration but without this, the node would serve without a new generation.
		pending := recovered
		pending.Pending = true
		return dir.SetRecovered(pending)
	})
	if err == nil {
		err = dir.SetRecovered(recovered)
	}
	return plan, err
}

// rosterOf turns peers into members. Names are those of the list that the folder keeps, which every start renews.
func rosterOf(peers []RecoverPeer, dir *datadir.Dir) (members []store.Member, err error) {
	known, err := dir.Members()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range known {
		names = append(names, m.Name+" ("+m.ID.String()+")")
	}
	slices.Sort(names)
	voters, self := 0, false
	for _, p := range peers {
		i := slices.IndexFunc(known, func(m datadir.Member) bool { return m.Name == p.Node })
		if i < 0 {
			i = slices.IndexFunc(known, func(m datadir.Member) bool { return m.ID.String() == p.Node })
		}
		if i < 0 {
			return nil, fmt.Errorf("%w: this node knows of no member %q, only of %s", ErrRecoverPeers, p.Node, strings.Join(names, ", "))
		}
		m := store.Member{ID: known[i].ID, Voter: p.Voter}
		if slices.ContainsFunc(members, func(o store.Member) bool { return o.ID == m.ID }) {
			return nil, fmt.Errorf("%w: %s is named twice", ErrRecoverPeers, known[i].Name)
		}
		if members = append(members, m); m.Voter {
			voters++
		}
		self = self || m.ID == dir.ID()
	}
	switch {
	case len(members) == 0:
		return nil, fmt.Errorf("%w: none is named; name the nodes that are left, this one among them", ErrRecoverPeers)
	case !self:
		return nil, fmt.Errorf("%w: the node of this data folder (%s) is not among them, so it is one of those to be given up; run this on the nodes that are named, and empty this folder before it joins again",
			ErrRecoverPeers, dir.ID())
	case voters == 0:
		return nil, fmt.Errorf("%w: none of them is a voter", ErrRecoverPeers)
	}
	return members, nil
}

// makePlan compares the peers with the table.
func makePlan(cfg RecoverConfig, dir *datadir.Dir, fsm *raftfsm.FSM, found store.Found, members []store.Member) (RecoverPlan, error) {
	p := RecoverPlan{
		Cluster: fmt.Sprintf("%016x", fsm.ClusterID()), Index: found.Index, Term: found.Term, Routes: fsm.Stats().Routes,
		Generation: cfg.Generation, CAKey: dir.HasSecret(datadir.CAKey),
	}
	if fsm.ClusterID() == 0 {
		return p, errors.New("the table of this node is empty: it had not received the state of its cluster yet, so there is nothing to recover; recover another node, or empty this folder and join again")
	}
	switch now := fsm.Generation(); {
	case p.Generation == 0 && now >= 1<<16-2:
		return p, errors.New("the generations are used up")
	case p.Generation == 0:
		p.Generation = now + 1
	case p.Generation <= now:
		return p, fmt.Errorf("%w: generation %d is not above the table's, which is %d", ErrRecoverPeers, p.Generation, now)
	}
	nodes := fsm.Nodes()
	for _, m := range members {
		i := slices.IndexFunc(nodes, func(n raftfsm.Node) bool { return n.ID == m.ID })
		if i < 0 {
			return p, fmt.Errorf("%w: %s is not a member any more", ErrRecoverPeers, m.ID)
		}
		keep := RecoverNode{ID: m.ID, Name: nodes[i].Name, Voter: m.Voter, Mesh: nodes[i].Addrs.Mesh}
		p.Keep = append(p.Keep, keep)
		if m.ID == dir.ID() {
			p.Node = keep
		}
	}
	for _, n := range nodes {
		if !slices.ContainsFunc(members, func(m store.Member) bool { return m.ID == n.ID }) {
			was := slices.Contains(found.Members, store.Member{ID: n.ID, Voter: true})
			p.Lose = append(p.Lose, RecoverNode{ID: n.ID, Name: n.Name, Voter: was, Mesh: n.Addrs.Mesh})
		}
	}
	slices.SortFunc(p.Keep, func(a, b RecoverNode) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

// recoveryMark is the same on all nodes that were recovered with the same peers into the same generation, and on no others.
func recoveryMark(p RecoverPlan) uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "%s generation %d\n", p.Cluster, p.Generation)
	for _, n := range slices.SortedFunc(slices.Values(p.Keep), func(a, b RecoverNode) int { return strings.Compare(a.ID.String(), b.ID.String()) }) {
		fmt.Fprintf(h, "%s %t\n", n.ID, n.Voter)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// openLineage loads from which recovery this node's Raft state descends.
func (n *Node) openLineage() error {
	own, err := n.dir.Recovered()
	if err != nil {
		return err
	}
	if own.Pending {
		return fmt.Errorf("recovering %s was interrupted: run `imctl raft recover` on it again, with the same file, before it is started", n.cfg.Data)
	}
	n.lineage = &lineageLayer{
		StreamLayer: n.mesh.RaftLayer(), log: n.log.With("part", "raft"), own: own, keep: n.dir.SetRecovered,
		empty: func() bool {
			has, err := n.store.HasState()
			return err == nil && !has
		},
		givenUp: func() { n.end(errGivenUp) },
	}
	return nil
}

// beginGeneration is the first thing that a recovered cluster agrees upon: every node is down and every route void, whatever
// the former cluster went on to do. The leader serves nothing before that.
func (l *lead) beginGeneration(ctx context.Context) error {
	want := l.n.lineage.lineage().Generation
	if l.n.fsm.Generation() >= want {
		return nil
	}
	r, err := l.apply(ctx, &raftfsm.Command{Kind: raftfsm.KindRecover, Generation: want})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("beginning generation %d: %w", want, err)
	}
	l.log.Warn("a new generation has begun: every node comes up anew, every client logs in again", slog.Group("audit", "event", "recover", "generation", want))
	return nil
}
