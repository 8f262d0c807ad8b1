package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// recoverTermStep is by how much Recover raises the term.
//
// The members that are lost may have been in later terms than this one knows of, and a survivor may hold an entry of such a
// term that no other survivor has seen. If the recovered cluster elected its leader in that very term, two different entries
// would share an index and a term, and Raft takes those for the same entry. No cluster holds this many elections.
const recoverTermStep = 1 << 32

// Found is what Recover found in the folder.
type Found struct {
	Index   uint64   // of the last entry, committed or not: all of them take effect
	Term    uint64   // of that entry
	Members []Member // the newest configuration in the log, sorted by id
}

// Recover replaces the Raft configuration of a member that is not running by members, after so many voters were lost that
// no change can be agreed upon any more. Every surviving member has to be recovered with the same members before any of
// them is started. Of cfg, Dir, Local and FSM are required; FSM must be a fresh one and must be thrown away afterwards.
//
// It makes the checks that Open makes, restores FSM from the snapshot, applies the whole log, entries that may not have been
// committed included (nobody is left who could say), and writes a snapshot with members as its configuration in place of
// the log. The member's term rises far above any that the former cluster can have reached.
//
// Before anything is written, before is called with FSM as it will be; an error of it ends Recover, and is returned. It may
// be nil. A Recover that was interrupted at any point can be repeated; until it has returned nil the member must not be started.
func Recover(cfg Config, members []Member, before func(Found) error) (found Found, err error) {
	if cfg.Layer == nil {
		cfg.Layer = noLayer{}
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(error) {} // failures are returned
	}
	cfg.RequireState = true
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return found, err
	}
	wanted, err := configurationOf(members)
	if err != nil {
		return found, err
	}
	s := &Store{cfg: cfg, done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.leader.init()
	s.fail = newFailStop(cfg.Logger, cfg.Fatal)
	s.fail.quiet.Store(true)
	defer func() { err = errors.Join(err, s.abort()) }()
	if err := s.openDisk(); err != nil {
		return found, err
	}
	if err := s.checkFolder(); err != nil {
		return found, err
	}
	f := &recoverFSM{fsm: s.fsm, before: func() (err error) {
		if found, err = s.found(); err != nil {
			return err
		}
		if before != nil {
			if err := before(found); err != nil {
				return err
			}
		}
		return s.raiseTerm()
	}}
	if err := s.runRecover(f, wanted); err != nil {
		return found, err
	}
	// The snapshot counts by its name: a clock that was set back must not leave an older one in front.
	if m := s.snaps.last(); m == nil || !slices.Equal(m.Configuration.Servers, wanted.Servers) {
		return found, errors.New("the recovered snapshot is not the newest one: is this machine's clock set back? Put it right and recover again")
	}
	return found, nil
}

func configurationOf(members []Member) (c raft.Configuration, err error) {
	voters := 0
	for _, m := range members {
		if m.ID == 0 {
			return c, errors.New("recover: a member's id is zero")
		}
		id := raft.ServerID(m.ID.String())
		if slices.ContainsFunc(c.Servers, func(s raft.Server) bool { return s.ID == id }) {
			return c, fmt.Errorf("recover: member %s is named twice", id)
		}
		srv := raft.Server{Suffrage: raft.Nonvoter, ID: id, Address: raft.ServerAddress(id)}
		if m.Voter {
			srv.Suffrage = raft.Voter
			voters++
		}
		c.Servers = append(c.Servers, srv)
	}
	if voters == 0 {
		return c, errors.New("recover: none of the members is a voter")
	}
	return c, nil
}

// runRecover calls RecoverCluster on a goroutine of its own, since the stores below end the goroutine that meets a failure.
func (s *Store) runRecover(f *recoverFSM, c raft.Configuration) error {
	s.disk.counting.Store(true) // the configurations in the log are noticed
	defer s.disk.counting.Store(false)
	result := make(chan error, 1)
	go func() {
		err := errors.New("recovering was cut short")
		defer func() { result <- err }()
		err = guard(func() error { return raft.RecoverCluster(s.raftConfig(), f, s.disk, s.stable, s.snaps, nil, c) })
	}()
	var err error
	select {
	case err = <-result:
	case <-s.fail.failed:
		select {
		case <-result:
		case <-time.After(closeGrace): // it hangs in a write that may never end
		}
	}
	switch {
	case s.fail.hasFailed() != nil:
		return s.fail.err
	case s.fsm.restoreErr() != nil:
		return s.fsm.restoreErr()
	case f.err != nil:
		return f.err
	case err != nil:
		return fmt.Errorf("recover the Raft log: %w", err)
	}
	return nil
}

// found reads what there is, once the log was read through.
func (s *Store) found() (f Found, err error) {
	if m := s.snaps.last(); m != nil {
		f.Index, f.Term = m.Index, m.Term
	}
	last, err := s.disk.LastIndex()
	if err != nil {
		return f, err
	}
	if last > f.Index {
		var l raft.Log
		if err := s.disk.GetLog(last, &l); err != nil {
			return f, err
		}
		f.Index, f.Term = l.Index, l.Term
	}
	f.Members, _, err = s.Members()
	return f, err
}

// raiseTerm comes before the snapshot: a member that starts with the new configuration has the new term.
func (s *Store) raiseTerm() error {
	term, err := s.stable.getUint64(keyTerm)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	s.stable.put(keyTerm, binary.BigEndian.AppendUint64(nil, term+recoverTermStep))
	return nil
}

// recoverFSM calls before at the moment when RecoverCluster has applied everything and has not written anything.
type recoverFSM struct {
	*fsm
	before func() error
	err    error // of before
}

// Snapshot begins the recovered snapshot.
func (f *recoverFSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.err = f.before(); f.err != nil {
		return nil, f.err
	}
	return f.fsm.Snapshot()
}

// noLayer is the network of a member that does not run.
type noLayer struct{}

func (noLayer) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noLayer) Close() error              { return nil }
func (noLayer) Addr() net.Addr            { return &net.TCPAddr{} }
func (noLayer) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}
