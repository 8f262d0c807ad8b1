package raftfsm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

var update = flag.Bool("update", false, "write the scenarios' outputs instead of comparing them")

// TestScenarios runs testdata/routing/*.txt, in which a command is followed by what comes of it on lines that begin with "> ".
//
//	init CLUSTER [reject] [level=L]   join NODE [NAME] [addr=A]    up NODE boot=B
//	expire NODE inc=I term=T          drain NODE [cancel]          remove NODE [by=NODE]
//	settings replace|reject [class]   recover generation=G         term T (of the entries from here on)
//	batch NODE inc=I seq=S            with ops on indented lines:
//	  register CLIENT as INSTANCE.ATTEMPT [fenced=EPOCH]
//	  unregister CLIENT epoch=EPOCH
//	  join group|service NAME         leave group|service NAME
//	lookup CLIENT                     nodes                        restart (through a snapshot)
//	holders group|service NAME        level L                      devices USER
//
// Epochs are written as generation.counter; n1 is the node with id 1.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../testdata/routing/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(t, strings.Split(strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n"))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := strings.ReplaceAll(string(data), "\r\n", "\n")
			if got != want {
				w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
				for i := range min(len(w), len(g)) {
					if w[i] != g[i] {
						t.Fatalf("line %d:\nwant %s\ngot  %s", i+1, w[i], g[i])
					}
				}
				t.Fatalf("%d lines, want %d", len(g), len(w))
			}
		})
	}
}

type scenario struct {
	t     *testing.T
	table *Table
	index uint64
	term  uint64
}

func runScenario(t *testing.T, lines []string) string {
	s := &scenario{t: t, table: NewTable(), term: 1}
	var out strings.Builder
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || line[0] == '#' {
			continue
		}
		var ops []Op
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "  ") {
			i++
			fmt.Fprintln(&out, lines[i])
			ops = append(ops, s.op(strings.Fields(lines[i])))
		}
		for _, l := range s.run(strings.Fields(line), ops) {
			fmt.Fprintln(&out, "> "+l)
		}
	}
	return out.String()
}

func (s *scenario) number(x string) uint64 {
	s.t.Helper()
	n, err := strconv.ParseUint(x, 10, 64)
	if err != nil {
		s.t.Fatalf("%q is no number", x)
	}
	return n
}

func (s *scenario) node(x string) wire.NodeID {
	s.t.Helper()
	return wire.NodeID(s.number(strings.TrimPrefix(x, "n")))
}

func (s *scenario) epoch(x string) wire.Epoch {
	s.t.Helper()
	g, c, _ := strings.Cut(x, ".")
	return wire.MakeEpoch(uint16(s.number(g)), s.number(c))
}

// arg finds key=value.
func (s *scenario) arg(f []string, name string) (string, bool) {
	for _, x := range f {
		if v, ok := strings.CutPrefix(x, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

func (s *scenario) num(f []string, name string) uint64 {
	s.t.Helper()
	v, ok := s.arg(f, name)
	if !ok {
		s.t.Fatalf("%q: %s is missing", f, name)
	}
	return s.number(v)
}

func (s *scenario) op(f []string) Op {
	s.t.Helper()
	op := Op{Client: wire.ClientID{ID: f[1]}}
	switch f[0] {
	case "join", "leave":
		op = Op{Kind: Join, Topic: s.topic(f[1:])}
		if f[0] == "leave" {
			op.Kind = Leave
		}
	case "register":
		op.Kind = Register
		i, a, _ := strings.Cut(f[3], ".")
		op.Session = wire.SessionID{Instance: s.number(i), Attempt: s.number(a)}
		if e, ok := s.arg(f, "fenced"); ok {
			op.Fenced = s.epoch(e)
		}
	case "unregister":
		op.Kind = Unregister
		e, _ := s.arg(f, "epoch")
		op.Epoch = s.epoch(e)
	default:
		s.t.Fatalf("unknown op %q", f[0])
	}
	return op
}

func (s *scenario) topic(f []string) wire.Topic {
	s.t.Helper()
	k, err := wire.ParseTopicKind(f[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return wire.Topic{Kind: k, Name: f[1]}
}

func epochText(e wire.Epoch) string { return fmt.Sprintf("%d.%d", e.Generation(), e.Counter()) }

func sessionText(s wire.SessionID) string { return fmt.Sprintf("%d.%d", s.Instance, s.Attempt) }

func (s *scenario) run(f []string, ops []Op) []string {
	s.t.Helper()
	c := &Command{}
	switch f[0] {
	case "term":
		s.term = s.number(f[1])
		return nil
	case "lookup":
		r, ok := s.table.Lookup(wire.ClientID{ID: f[1]})
		if !ok {
			return []string{"no route"}
		}
		return []string{fmt.Sprintf("n%d incarnation %d, session %s, epoch %s", r.Node, r.Incarnation, sessionText(r.Session), epochText(r.Epoch))}
	case "holders":
		var out []string
		for _, h := range s.table.Holders(s.topic(f[1:]), nil) {
			out = append(out, fmt.Sprintf("n%d incarnation %d", h.Node, h.Incarnation))
		}
		if out == nil {
			return []string{"nobody"}
		}
		return out
	case "devices":
		u := wire.ClientID{ID: f[1]}
		var out []string
		for _, d := range s.table.devices(&s.table.stripes[stripeOf(u.Hash())], u, u.Hash(), nil) {
			out = append(out, fmt.Sprintf("%q n%d, epoch %s", d.ID, d.Node, epochText(d.Epoch)))
		}
		slices.Sort(out)
		return out
	case "nodes":
		var out []string
		for _, m := range s.table.sorted() {
			l := fmt.Sprintf("n%d %s %s, incarnation %d, boot %d", m.ID, m.Name, m.State, m.Incarnation, m.Boot)
			if m.Addrs.Mesh != "" {
				l += ", addr " + m.Addrs.Mesh
			}
			out = append(out, l)
		}
		for _, id := range slices.Sorted(func(yield func(wire.NodeID) bool) {
			for id := range s.table.removed {
				if !yield(id) {
					return
				}
			}
		}) {
			out = append(out, fmt.Sprintf("n%d removed", id))
		}
		return out
	case "restart":
		before := s.table.Hash()
		s.table = restored(s.t, s.table)
		if s.table.Hash() != before {
			s.t.Fatal("hash after the restart differs")
		}
		return nil
	case "init":
		c.Kind, c.ClusterID = KindInit, s.number(f[1])
		if slices.Contains(f, "reject") {
			c.Settings.Duplicate = DuplicateReject
		}
		if l, ok := s.arg(f, "level"); ok {
			c.Level = uint32(s.number(l))
		}
	case "level":
		c.Kind, c.Level = KindFeatureLevel, uint32(s.number(f[1]))
	case "join":
		c.Kind, c.Node, c.Name = KindNodeJoin, s.node(f[1]), f[1]
		if len(f) > 2 && !strings.Contains(f[2], "=") {
			c.Name = f[2]
		}
		c.Addrs.Mesh, _ = s.arg(f, "addr")
	case "up":
		c.Kind, c.Node, c.Boot = KindNodeUp, s.node(f[1]), wire.Boot(s.num(f, "boot"))
		c.Addrs.Mesh, _ = s.arg(f, "addr")
	case "expire":
		c.Kind, c.Node, c.Incarnation, c.Term = KindNodeExpire, s.node(f[1]), wire.Incarnation(s.num(f, "inc")), s.num(f, "term")
	case "drain":
		c.Kind, c.Node, c.Cancel = KindNodeDrain, s.node(f[1]), slices.Contains(f, "cancel")
	case "remove":
		c.Kind, c.Node = KindNodeRemove, s.node(f[1])
		if by, ok := s.arg(f, "by"); ok {
			c.By = s.node(by)
		}
	case "recover":
		c.Kind, c.Generation = KindRecover, uint16(s.num(f, "generation"))
	case "settings":
		c.Kind = KindSetSettings
		p, err := ParseDuplicatePolicy(f[1])
		if err != nil {
			s.t.Fatal(err)
		}
		c.Settings.Duplicate = p
		c.Settings.OnePerClass = slices.Contains(f, "class")
	case "batch":
		c.Kind, c.Node, c.Incarnation, c.Seq, c.Ops = KindBatch, s.node(f[1]), wire.Incarnation(s.num(f, "inc")), s.num(f, "seq"), ops
	default:
		s.t.Fatalf("unknown command %q", f[0])
	}
	s.index++
	r := s.table.Apply(s.index, s.term, c)
	head := fmt.Sprintf("%s @%d", r.Code, r.Index)
	if r.Text != "" {
		head += ": " + r.Text
	}
	if c.Kind == KindNodeUp && r.Code == wire.OK {
		head += fmt.Sprintf(" incarnation %d, boot %d", r.Incarnation, r.Boot)
	}
	if r.Replaced != 0 {
		head += fmt.Sprintf(" replaced n%d", r.Replaced)
	}
	out := []string{head}
	for i, o := range r.Ops {
		var about fmt.Stringer = c.Ops[i].Client
		if c.Ops[i].Kind.ofTopic() {
			about = c.Ops[i].Topic
		}
		l := fmt.Sprintf("  %s: %s", about, o.Code)
		if o.Epoch != 0 {
			l += " epoch " + epochText(o.Epoch)
		}
		if o.Node != 0 {
			what := "it"
			if o.HolderClient.ID != "" {
				what = o.HolderClient.String()
			}
			l += fmt.Sprintf(", n%d incarnation %d has %s for session %s", o.Node, o.Incarnation, what, sessionText(o.HolderSession))
		}
		out = append(out, l)
	}
	return out
}
