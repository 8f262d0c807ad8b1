package cli

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"imroute/node/admin"
)

func (d *dev) alive() int {
	n := 0
	for _, c := range d.children {
		if c != nil && c.running() {
			n++
		}
	}
	return n
}

// stop ends all nodes: in order first, by force after devStopWait or at the second signal. The context is only cleared of
// a cluster whose data is gone.
func (d *dev) stop() error {
	for _, c := range d.children {
		if c != nil {
			c.terminate()
		}
	}
	timer := time.NewTimer(devStopWait)
	defer timer.Stop()
	force, late := (<-chan struct{})(d.force), timer.C
	for _, c := range d.children {
		for c != nil && c.running() {
			select {
			case <-c.exited:
			case <-force:
				force = nil
				d.killAll()
			case <-late:
				late = nil
				d.logs.say("some nodes did not end within %s: killing them", devStopWait)
				d.killAll()
			}
		}
	}
	d.watchers.Wait()
	return d.giveBack()
}

func (d *dev) killAll() {
	for _, c := range d.children {
		if c != nil {
			c.kill()
		}
	}
}

// launch starts the process of node i.
func (d *dev) launch(i int) error {
	out := d.logs.prefixed(d.plan[i].name)
	c, err := startChild(d.io.Executable, d.nodeArgs(i), out)
	if err != nil {
		return fail("dev", "", "cannot start %s: %w", d.plan[i].name, err)
	}
	d.children[i] = c
	d.cluster.Nodes[i].PID = c.pid
	d.watchers.Go(func() {
		<-c.exited
		_ = out.Close() // flushes the last, unfinished line; it cannot fail
		d.died <- i     // as much room as nodes, and a node is started again only after this was read
	})
	return nil
}

// nodeArgs are the arguments that node i is started with.
func (d *dev) nodeArgs(i int) []string {
	p := d.plan[i]
	a := append([]string{"node", "start", "--no-context", "--parent-pipe", "--log-level", d.logLevel}, d.placeArgs(i)...)
	switch {
	case p.old:
		for j, o := range d.plan { // where the others are now, in case their ports are new
			if j != i && o.old {
				a = append(a, "--join", o.addrs.Mesh)
			}
		}
	case i == 0:
		a = append(a, "--bootstrap")
	default:
		a = append(a, "--join", d.plan[0].addrs.Mesh, "--token-file", d.token)
	}
	return a
}

// placeArgs say who and where node i is.
func (d *dev) placeArgs(i int) []string {
	p := d.plan[i]
	return append([]string{
		"--dev", "--name", p.name, "--data", filepath.Join(d.cluster.Data, p.name),
		"--mesh", p.addrs.Mesh, "--client", p.addrs.ClientTCP, "--client-ws", p.addrs.ClientWS, "--admin", p.addrs.Admin,
	}, d.nodeFlags...)
}

// How long dev asks whether a node whose process ended is a member still: the others may hear a little later than it did itself
// that it is none.
const (
	devGoneWait = 2 * time.Second
	devGoneLook = time.Second // of a node that stopped in order and is still listed
)

// gone tells whether node i, whose process ended, is no member of the cluster any more, as the nodes that run see it. If nobody
// can say, it is one.
func (d *dev) gone(ctx context.Context, i int) bool {
	var ask []string
	for j, c := range d.children {
		if c != nil && c.running() {
			ask = append(ask, d.plan[j].addrs.Admin)
		}
	}
	if len(ask) == 0 {
		return false
	}
	c, err := admin.NewClient(admin.ClientConfig{Addrs: ask, Timeout: devGoneWait})
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, devGoneWait)
	defer cancel()
	for began := time.Now(); ; {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return false
		}
		at := slices.IndexFunc(nodes, func(n admin.Node) bool { return n.Name == d.plan[i].name })
		switch {
		case at < 0:
			return true
		case d.children[i].err != nil, nodes[at].State == admin.StateDown, time.Since(began) > devGoneLook:
			return false
		}
		if pause(ctx, devPoll) != nil {
			return false
		}
	}
}
