package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"imroute/node/admin"
)

// announce tells where the nodes listen and what to try next.
func (d *dev) announce(context.Context) error {
	if d.asJSON() {
		return d.printLine(d.cluster)
	}
	t := newTable("NODE", "PID", "MESH", "CLIENT", "WEBSOCKET", "ADMIN")
	for _, n := range d.cluster.Nodes {
		t.row(n.Name, n.PID, n.Mesh, n.ClientTCP, "ws://"+n.ClientWS+"/v1/ws", n.Admin)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s ready. Data: %s", plural(len(d.cluster.Nodes), "node is", "nodes are"), d.cluster.Data)
	if d.data == "" {
		b.WriteString(" (removed at the end)")
	}
	b.WriteString("\n\n")
	if err := t.write(&b); err != nil {
		return err
	}
	b.WriteString("\nTry in other terminals:\n")
	for _, c := range d.suggestions() {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	last := len(d.cluster.Nodes) - 1
	fmt.Fprintf(&b, "\nOr chat in a browser:  http://%s/", d.cluster.Nodes[0].ClientWS)
	if last > 0 {
		fmt.Fprintf(&b, "  and in another tab  http://%s/", d.cluster.Nodes[last].ClientWS)
	}
	b.WriteString("\n")
	switch pid, name := d.cluster.Nodes[last].PID, d.cluster.Nodes[last].Name; {
	case last >= 2:
		fmt.Fprintf(&b, "\nKill a node and see its clients move:  kill -9 %d   (%s)\n", pid, name)
	case last == 1: // a node that joins is a voter only if there is a third
		fmt.Fprintf(&b, "\nKill the node that is no voter and see its clients move:  kill -9 %d   (%s; with three nodes it may be any)\n", pid, name)
	default:
		b.WriteString("\nOne node tolerates no failure: start three (without --nodes) to kill one and see its clients move.\n")
	}
	b.WriteString("Ctrl-C stops everything.\n\n")
	return d.printf("%s", b.String())
}

// suggestions are commands that work when pasted.
func (d *dev) suggestions() []string {
	p, admin, first, last := d.program(), "", "", ""
	n := d.cluster.Nodes
	if d.noContext || d.contextPath() == "" { // nothing is remembered: name the nodes
		admin = " --addr " + n[0].Admin
		first, last = " --addr "+n[0].ClientTCP, " --addr "+n[len(n)-1].ClientTCP
	}
	return []string{
		p + " client connect --as bob" + last,
		p + " chat --as carol" + first,
		p + " client send --as alice --to bob --ack client \"hello\"" + first,
		p + " route get bob" + admin,
		p + " node list" + admin,
		p + " cluster status" + admin,
	}
}

// restartCommand starts node i again by hand.
func (d *dev) restartCommand(i int) string {
	words := []string{"node", "start"}
	if d.noContext {
		words = append(words, "--no-context")
	}
	return d.program() + " " + quoted(append(words, d.placeArgs(i)...))
}

// replaceCommand starts a new node, with the name and the addresses of node i, which is no member any more.
func (d *dev) replaceCommand(i int) string {
	for j, c := range d.children {
		if c == nil || !c.running() {
			continue
		}
		there := d.plan[j].addrs
		return "rm -r " + quoted([]string{filepath.Join(d.cluster.Data, d.plan[i].name)}) + " && " + d.restartCommand(i) + " --join " + there.Mesh +
			" --token \"$(" + d.program() + " cluster token create -q --addr " + there.Admin + ")\""
	}
	return d.program() + " dev"
}

// quoted joins words for a shell.
func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = admin.ShellWord(w)
	}
	return strings.Join(out, " ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
