package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

func recoverConfig(id wire.NodeID, dir string) Config {
	return Config{Dir: dir, Local: id, FSM: new(sumFSM)}
}

// lost makes a cluster of three, with or without snapshots, and closes it. The sum is 10 on all of them.
func lost(t *testing.T, h *hub, snapshot bool) []*node {
	t.Helper()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	for v := range uint64(5) {
		mustPropose(t, lead, v)
	}
	for _, n := range nodes {
		eventually(t, "applied", func() bool { s, _ := n.fsm.read(); return s == 10 })
		if snapshot {
			if err := n.Snapshot(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func TestRecoverAlone(t *testing.T) {
	for name, snapshot := range map[string]bool{"from the log": false, "from a snapshot": true} {
		t.Run(name, func(t *testing.T) {
			h := newHub()
			nodes := lost(t, h, snapshot)
			n := nodes[2]
			all := []Member{{1, true}, {2, true}, {3, true}}

			// Whoever says no is heard before anything is written.
			no := errors.New("no")
			if _, err := Recover(recoverConfig(3, n.cfg.Dir), []Member{{3, true}}, func(Found) error { return no }); !errors.Is(err, no) {
				t.Fatalf("refused with %v", err)
			}
			again := open(t, h, 3, n.cfg.Dir)
			if m, _, err := again.Members(); err != nil || !slices.Equal(m, all) || again.Term() >= recoverTermStep {
				t.Fatalf("after a refusal: %v, %v, term %d", m, err, again.Term())
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}

			cfg := recoverConfig(3, n.cfg.Dir)
			var told Found
			found, err := Recover(cfg, []Member{{3, true}}, func(f Found) error {
				told = f
				if sum, _ := cfg.FSM.(*sumFSM).read(); sum != 10 {
					t.Errorf("the state machine holds %d when asked", sum)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if found.Index == 0 || found.Term == 0 || !slices.Equal(found.Members, all) || told.Index != found.Index {
				t.Fatalf("found %+v, told %+v", found, told)
			}
			one := open(t, h, 3, n.cfg.Dir, func(c *Config) { c.RequireState = true })
			waitLeads(t, one)
			if sum, _ := mustPropose(t, one, 7); sum != 17 {
				t.Fatalf("sum %d, want 17", sum)
			}
			if m, _, err := one.Members(); err != nil || !slices.Equal(m, []Member{{3, true}}) || one.Term() <= recoverTermStep {
				t.Fatalf("members %v, %v, term %d", m, err, one.Term())
			}

			// New members join it.
			fresh := open(t, h, 4, t.TempDir())
			if err := one.AddNonvoter(within(t), 4); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the joiner has it all", func() bool { s, _ := fresh.fsm.read(); return s == 17 })
			if err := one.Promote(within(t), 4); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Two survivors, one of which had not heard of the last entries.
func TestRecoverTwoThatDiffer(t *testing.T) {
	h := newHub()
	nodes := cluster(t, h)
	lead := leaderOf(t, nodes...)
	rest := others(nodes, lead)
	mustPropose(t, lead, 1)
	for _, n := range nodes {
		eventually(t, "applied", func() bool { s, _ := n.fsm.read(); return s == 1 })
	}
	if err := rest[1].Close(); err != nil {
		t.Fatal(err)
	}
	mustPropose(t, lead, 2) // only lead and rest[0] have it
	for _, n := range []*node{lead, rest[0]} {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	survivors := []*node{rest[0], rest[1]}
	members := []Member{{rest[0].id, true}, {rest[1].id, true}}
	for _, n := range survivors {
		if _, err := Recover(recoverConfig(n.id, n.cfg.Dir), members, nil); err != nil {
			t.Fatal(err)
		}
	}
	var up []*node
	for _, n := range survivors {
		up = append(up, open(t, h, n.id, n.cfg.Dir))
	}
	next := leaderOf(t, up...)
	if sum, _ := mustPropose(t, next, 4); sum != 7 {
		t.Fatalf("sum %d, want 7: the longer log was lost", sum)
	}
	for _, n := range up {
		eventually(t, "both have the same", func() bool { s, _ := n.fsm.read(); return s == 7 })
	}
}

// crashAt ends the process, as far as the disk can tell, at its nth write.
type crashAt struct {
	db
	left int
}

var errCrash = errors.New("the power went")

func (c *crashAt) write() error {
	if c.left--; c.left < 0 {
		return errCrash
	}
	return nil
}

func (c *crashAt) Set(k, v []byte) error {
	if err := c.write(); err != nil {
		return err
	}
	return c.db.Set(k, v)
}

func (c *crashAt) DeleteRange(a, b uint64) error {
	if err := c.write(); err != nil {
		return err
	}
	return c.db.DeleteRange(a, b)
}

func TestRecoverInterrupted(t *testing.T) {
	h := newHub()
	nodes := lost(t, h, false)
	dir := nodes[0].cfg.Dir
	crashes := 0
	for at := 0; ; at++ {
		cfg := recoverConfig(1, dir)
		cfg.wrapDB = func(d db) db { return &crashAt{db: d, left: at} }
		_, err := Recover(cfg, []Member{{1, true}}, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("crash %d: %v", at, err)
		}
		crashes++
	}
	if crashes < 3 { // the term, the snapshot's index, the log
		t.Fatalf("only %d places to crash at", crashes)
	}
	n := open(t, h, 1, dir)
	waitLeads(t, n)
	if sum, _ := mustPropose(t, n, 1); sum != 11 {
		t.Fatalf("sum %d, want 11", sum)
	}
}

func TestRecoverRefuses(t *testing.T) {
	dir, _ := history(t)
	for want, members := range map[string][]Member{
		"zero": {{0, true}}, "twice": {{1, true}, {1, false}}, "voter": {{1, false}},
	} {
		if _, err := Recover(recoverConfig(1, dir), members, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want something about %q", members, err, want)
		}
	}
	one := []Member{{1, true}}
	if _, err := Recover(recoverConfig(1, t.TempDir()), one, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("an empty folder: %v", err)
	}
	n := open(t, newHub(), 1, dir)
	if _, err := Recover(recoverConfig(1, dir), one, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a running member: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := recoverConfig(1, dir)
	cfg.FSM = &sumFSM{restoreErr: errors.New("cannot be read")}
	if _, err := Recover(cfg, one, nil); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a snapshot that does not restore: %v", err)
	}
	snap := newestSnapshot(t, dir)
	b, err := os.ReadFile(snap)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-20] ^= 1
	if err := os.WriteFile(filepath.Clean(snap), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(recoverConfig(1, dir), one, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged snapshot: %v", err)
	}
}
