package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"imroute/node"
)

type raftRecoverOptions struct {
	*app
	data, peers string
	generation  uint16
}

func newRaftRecoverCmd(a *app) *cobra.Command {
	o := &raftRecoverOptions{app: a}
	c := &cobra.Command{
		Use: "recover --data DIR --peers FILE", Short: "Go on without a majority of the voters that is lost for good",
		Long: `Recover makes a stopped node a member of a cluster of the nodes in FILE alone. It is
for the one case in which nothing else helps: more than half of the voters are lost for
good. If one of them can be started again with its data, start it instead.

  1. Make sure that the lost nodes are off and stay off: among themselves they may still be
     a majority, and what they then agree upon is not known here.
  2. Stop every node that is left.
  3. Run this on each of them, with the same FILE.
  4. Start them, remove the lost ones (imctl node remove) and let new nodes join.

What only the lost nodes knew is lost; what reached a survivor counts, even if no majority
had it. All routes are void: clients log in again by themselves, with higher epochs. A lost
node that turns up with its old data later is refused, and stops; it may join again with an
empty data folder.

FILE names the nodes that are left, one name or id a line, with "non-voter" behind it for
one that is to have no vote:
  n1
  n4 non-voter
or it is what "imctl raft peers --output json" printed, without the peers that are lost.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			self := a.program() + " raft recover"
			switch {
			case len(a.addrs) > 0:
				return usage("run it on the machine that has the data folder, with --data", "--addr means nothing to \"raft recover\": it works on a stopped node")
			case o.data == "":
				return usage("for example \""+self+" --data ./n1 --peers survivors.txt\"", "--data is missing: the data folder of the stopped node")
			case o.peers == "":
				return usage("write the names of the nodes that are left into a file, one a line, and name it with --peers", "--peers is missing: which nodes are left?")
			}
			return o.run(cmd.Context())
		},
	}
	c.Flags().StringVar(&o.data, "data", "", "data folder of the stopped node")
	c.Flags().StringVar(&o.peers, "peers", "", "file that names the nodes that are left")
	c.Flags().Uint16Var(&o.generation, "generation", 0, "number of the recovery; give it if another survivor named a higher one")
	return c
}

func (o *raftRecoverOptions) run(ctx context.Context) error {
	peers, err := readPeers(o.peers)
	if err != nil {
		return err
	}
	// What the state machine and Raft say on the way is of no use here; what goes wrong is returned.
	plan, err := node.Recover(node.RecoverConfig{
		Data: o.data, Peers: peers, Generation: o.generation, Logger: slog.New(slog.DiscardHandler),
		Confirm: func(p node.RecoverPlan) error { return o.ask(ctx, p) },
	})
	if err != nil {
		return o.explain(err)
	}
	if o.asJSON() {
		return o.printJSON(plan)
	}
	return o.next(plan)
}

func (o *raftRecoverOptions) explain(err error) error {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, node.ErrRecoverRunning):
		return fail("running", "stop the node first; if the cluster still has a leader, recovering is not what you want: see \""+o.program()+" cluster health\"", "%w", err)
	case errors.Is(err, node.ErrRecoverPeers):
		return fail("peers", peersHint, "%w", err)
	}
	return fail("recover", "once the cause is gone run the same command again; the node is not started before", "%w", err)
}

// ask shows what is about to happen, and to whom.
func (o *raftRecoverOptions) ask(ctx context.Context, p node.RecoverPlan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s) of cluster %s, data folder %s\n", p.Node.Name, p.Node.ID, p.Cluster, o.data)
	fmt.Fprintf(&b, "  it has entries up to index %d, of term %d\n", p.Index, p.Term)
	fmt.Fprintf(&b, "  the cluster will be:  %s\n", nodeNames(p.Keep))
	fmt.Fprintf(&b, "  given up:             %s\n", nodeNames(p.Lose))
	b.WriteString("This will be lost for good:\n")
	if len(p.Lose) > 0 {
		fmt.Fprintf(&b, "  whatever %s agreed upon that did not reach the nodes that are left\n", names(p.Lose))
		fmt.Fprintf(&b, "  the data of %s: they can join again with empty data folders only\n", names(p.Lose))
	}
	fmt.Fprintf(&b, "  all routes (%d in this node's table): clients have to log in again, and do so by themselves\n", p.Routes)
	if !p.CAKey {
		b.WriteString("This node has no copy of the cluster's CA key, which only voters have: unless another node that is\nleft has one, no new node will ever be able to join.\n")
	}
	if !o.asJSON() || !o.yes {
		if _, err := fmt.Fprint(o.io.Err, printableLines(b.String(), "")); err != nil {
			return outputError(err)
		}
	}
	return o.confirm(ctx, fmt.Sprintf("recover %s into generation %d?", p.Node.Name, p.Generation))
}

// next says what is left to do.
func (o *raftRecoverOptions) next(p node.RecoverPlan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is recovered: generation %d, recovery %s\n", p.Node.Name, p.Generation, p.Recovery)
	b.WriteString("next:\n")
	var others []node.RecoverNode
	for _, n := range p.Keep {
		if n.ID != p.Node.ID {
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		fmt.Fprintf(&b, "  %s: before any node is started, run there as well, with the same file (it must name the same recovery):\n", names(others))
		fmt.Fprintf(&b, "    %s raft recover --data DIR --peers FILE --generation %d\n", o.program(), p.Generation)
	}
	fmt.Fprintf(&b, "  start:             %s node start --data %s\n", o.program(), o.data)
	for i, n := range p.Lose {
		what := ""
		if i == 0 {
			what = "remove the lost:"
		}
		fmt.Fprintf(&b, "  %-18s %s node remove %s\n", what, o.program(), n.Name)
	}
	fmt.Fprintf(&b, "  let others join:   %s cluster token create\n", o.program())
	_, err := fmt.Fprint(o.io.Out, printableLines(b.String(), ""))
	return outputError(err)
}

// nodeNames lists nodes with what they are, names without.
func nodeNames(nodes []node.RecoverNode) string {
	var list []string
	for _, n := range nodes {
		kind := "voter"
		if !n.Voter {
			kind = "non-voter"
		}
		list = append(list, n.Name+" ("+kind+")")
	}
	return orNone(strings.Join(list, ", "))
}

func names(nodes []node.RecoverNode) string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return strings.Join(list, ", ")
}
