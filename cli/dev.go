package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

type devOptions struct {
	*app
	nodes     int
	data      string
	portBase  int
	restart   bool
	noContext bool
	logLevel  string
	nodeFlags []string // of every node, beside the usual ones
}

const (
	devMaxNodes   = 15
	devReadyWait  = 60 * time.Second // for all nodes together
	devStopWait   = 10 * time.Second // then they are killed
	devPoll       = 50 * time.Millisecond
	devRestart    = time.Second // pause before a node that died is started again
	devClusterTag = "cluster.json"
)

func newDevCmd(a *app) *cobra.Command {
	o := &devOptions{app: a}
	c := &cobra.Command{
		Use: "dev", Short: "Run a whole cluster on this machine, to try it out and to develop against",
		Long: "Dev starts a cluster of real node processes on loopback in development mode (no tokens), waits until they are\n" +
			"ready, prints what to try next and shows their logs. Ctrl-C stops everything and removes the data, unless\n--data names a folder to keep it in. A second Ctrl-C kills at once.\n\n" +
			"It is the cluster that commands without --addr mean while it runs, under the name dev; if another one is running already,\n" +
			"the later one is dev2, and the first is meant again when that ends (\"imctl context use NAME\" switches, --no-context leaves it).",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.Flags().Changed("nodes")) },
	}
	c.Flags().IntVar(&o.nodes, "nodes", 3, "how many nodes")
	c.Flags().StringVar(&o.data, "data", "", "keep the data in this folder, and start from what is there")
	c.Flags().IntVar(&o.portBase, "port-base", 7900, "first port of the first node; taken ports are replaced by free ones")
	c.Flags().BoolVar(&o.restart, "restart", false, "start nodes again that die")
	c.Flags().BoolVar(&o.noContext, "no-context", false, "do not remember this cluster as the current one")
	c.Flags().StringVar(&o.logLevel, "log-level", "info", "log level of the nodes")
	return c
}

// devNode is one node as cluster.json has it.
type devNode struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	wire.Addrs
}

// devCluster is cluster.json.
type devCluster struct {
	Nodes []devNode `json:"nodes"`
	Data  string    `json:"data"`
}

// dev is a running "imctl dev". It belongs to the goroutine of run.
type dev struct {
	*devOptions
	plan     []devPlan
	cluster  devCluster
	children []*child // by number of the node; nil before its start
	died     chan int // numbers of nodes whose process ended
	logs     *logMux
	watchers sync.WaitGroup
	token    string // file with the join token

	context, before string // names: this cluster's in the context file, and what was current before; "": none
}

func (o *devOptions) run(ctx context.Context, nodesGiven bool) (err error) {
	if o.nodes < 1 || o.nodes > devMaxNodes {
		return usage("", "--nodes %d: want 1 to %d", o.nodes, devMaxNodes)
	}
	if o.portBase < 1 || o.portBase+portStep*o.nodes > 65535 {
		return usage("", "--port-base %d: want 1 to %d", o.portBase, 65535-portStep*o.nodes)
	}
	if o.io.Executable == "" {
		return fail("dev", "", "the program's own file is not known, so it cannot start nodes")
	}
	data, cleanup, err := o.folder()
	if err != nil {
		return err
	}
	defer func() {
		if e := cleanup(); e != nil && err == nil {
			err = e
		}
	}()
	ports := newPortPicker()
	defer ports.close()
	plan, err := planDev(data, o.nodes, nodesGiven, o.portBase, ports)
	if err != nil {
		return err
	}
	d := &dev{
		devOptions: o, plan: plan, cluster: devCluster{Data: data, Nodes: make([]devNode, len(plan))},
		children: make([]*child, len(plan)), died: make(chan int, len(plan)),
		logs: newLogMux(o.io.Err, o.colour(o.io.ErrTTY)),
	}
	for i, p := range plan {
		d.cluster.Nodes[i] = devNode{Name: p.name, Addrs: p.addrs}
	}
	defer func() {
		if e := d.stop(); e != nil && err == nil {
			err = e
		}
	}()
	if err := d.start(ctx); err != nil {
		if interrupted(ctx) {
			return nil
		}
		return err
	}
	if err := d.announce(ctx); err != nil {
		return err
	}
	return d.watch(ctx)
}

// devLock is the file in the data folder that a running "imctl dev" has locked.
const devLock = "dev.lock"

// devLockWait is longer than devRuns holds the lock.
const devLockWait = 100 * time.Millisecond

// devRuns tells whether an "imctl dev" runs on a data folder.
func devRuns(dir string) bool {
	path := filepath.Join(dir, devLock)
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return false
	}
	unlock, err := lockFile(path, 0)
	if err == nil {
		unlock()
	}
	return errors.Is(err, errLocked)
}

// folder returns the absolute data folder, locked against a second "imctl dev". cleanup gives it back and removes it if
// it is temporary.
func (o *devOptions) folder() (dir string, cleanup func() error, err error) {
	temporary := o.data == ""
	if temporary {
		for _, left := range removeLeftovers(os.TempDir()) {
			_, _ = fmt.Fprintf(o.io.Err, "removed %s, which an \"imctl dev\" left behind that was killed\n", left) // only for information
		}
		dir, err = os.MkdirTemp("", devTempPattern)
	} else {
		dir = absolute(o.data)
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", nil, fail("data", "name another folder with --data", "cannot make the data folder: %w", err)
	}
	unlock, err := lockFile(filepath.Join(dir, devLock), devLockWait)
	if errors.Is(err, errLocked) {
		return "", nil, fail("data_locked", "stop that one, or name another folder with --data", "another \"imctl dev\" runs on %s", dir)
	}
	if err != nil {
		return "", nil, fail("data", "name another folder with --data", "cannot lock the data folder: %w", err)
	}
	return dir, func() error {
		unlock()
		if !temporary {
			return nil
		}
		if node := devStillRuns(dir); node != "" { // somebody started it by hand
			_, _ = fmt.Fprintf(o.io.Err, "the data is kept in %s: %s runs on there\n", dir, node) // only for information
			return nil
		}
		if err := os.RemoveAll(dir); err != nil {
			return fail("data", "remove it by hand", "cannot remove the temporary data: %w", err)
		}
		return nil
	}, nil
}

// devStillRuns names a node whose process has its folder in dir; "" if there is none.
func devStillRuns(dir string) string {
	locks, _ := filepath.Glob(filepath.Join(dir, "*", dataLock)) // the pattern is good
	for _, lock := range locks {
		unlock, err := lockFile(lock, 0)
		if errors.Is(err, errLocked) {
			return filepath.Base(filepath.Dir(lock))
		}
		if err == nil {
			unlock()
		}
	}
	return ""
}

// start brings up the nodes that have state at once (they may need each other for a quorum), or else the first one as the
// founder; then all others join.
func (d *dev) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, devReadyWait, fmt.Errorf("the nodes were not ready within %s", devReadyWait))
	defer cancel()
	var later []int
	for i, p := range d.plan {
		if !p.old && i > 0 {
			later = append(later, i)
			continue
		}
		if err := d.launch(i); err != nil {
			return err
		}
	}
	for i, c := range d.children {
		if c != nil {
			if err := d.waitReady(ctx, i); err != nil {
				return err
			}
		}
	}
	if len(later) > 0 {
		if err := d.makeToken(ctx); err != nil {
			return err
		}
		defer os.Remove(d.token) // nodes that were started have read it
	}
	for _, i := range later {
		if err := d.launch(i); err != nil {
			return err
		}
	}
	for _, i := range later {
		if err := d.waitReady(ctx, i); err != nil {
			return err
		}
	}
	if err := d.waitVoters(ctx); err != nil {
		return err
	}
	if err := d.writeCluster(); err != nil {
		return err
	}
	return d.remember(ctx)
}

// waitVoters waits until the cluster can lose a node: whoever is told to kill one must not find that it was the only
// voter.
func (d *dev) waitVoters(ctx context.Context) error {
	if len(d.plan) < 3 {
		return nil
	}
	c, err := admin.NewClient(admin.ClientConfig{Addrs: []string{d.plan[0].addrs.Admin}, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		s, err := c.ClusterStatus(ctx)
		if err == nil && s.Voters >= min(3, s.Settings.TargetVoters) && int(s.NodesUp) >= len(d.plan) {
			return nil
		}
		if err := pause(ctx, devPoll); err != nil {
			return fmt.Errorf("%w: the cluster has %d voters, %d nodes are up", context.Cause(ctx), s.Voters, s.NodesUp)
		}
	}
}

// makeToken asks the first node for a join token. It goes into a file: a command line can be read by everybody.
func (d *dev) makeToken(ctx context.Context) error {
	c, err := admin.NewClient(admin.ClientConfig{Addrs: []string{d.plan[0].addrs.Admin}})
	if err != nil {
		return err
	}
	defer c.Close()
	var t admin.JoinToken
	for {
		if t, err = c.CreateToken(ctx, time.Hour); err == nil || !admin.IsUnavailable(err) {
			break
		}
		if err := pause(ctx, devPoll); err != nil {
			return context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot make a join token: %w", err)
	}
	d.token = filepath.Join(d.cluster.Data, "join.token")
	return writeFileAtomic(d.token, []byte(t.Token+"\n"), 0o600)
}

// waitReady asks a node until it is ready, its process ended, or ctx did.
func (d *dev) waitReady(ctx context.Context, i int) error {
	c, err := admin.NewClient(admin.ClientConfig{Addrs: []string{d.plan[i].addrs.Admin}, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	var last []string
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		r, err := c.Ready(try)
		cancel()
		if err == nil && r.Ready {
			return nil
		}
		if err == nil {
			last = r.Reasons
		}
		select {
		case <-d.children[i].exited:
			return fail("node_died", "its log above says why", "%s ended before it was ready: %s", d.plan[i].name, d.children[i].reason())
		case <-ctx.Done():
			cause := context.Cause(ctx)
			if len(last) > 0 && !errors.Is(cause, errInterrupted) {
				cause = fmt.Errorf("%w: %s says %q", cause, d.plan[i].name, last)
			}
			return cause
		case <-time.After(devPoll):
		}
	}
}

// writeCluster writes cluster.json.
func (d *dev) writeCluster() error {
	b, err := encodeCluster(d.cluster)
	if err != nil {
		return err
	}
	if err := writeFileAtomic(filepath.Join(d.cluster.Data, devClusterTag), b, 0o600); err != nil {
		return fail("data", "", "cannot write %s: %w", devClusterTag, err)
	}
	return nil
}

// watch reports nodes that die until a signal comes or none is left.
func (d *dev) watch(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case i := <-d.died:
			d.logs.say("%s ended: %s", d.plan[i].name, d.children[i].reason())
			if d.gone(ctx, i) {
				d.logs.say("%s left the cluster or was removed from it: it cannot come back with its data", d.plan[i].name)
				d.logs.say("a new node takes its place with: %s", d.replaceCommand(i))
				continue
			}
			if !d.restart {
				d.logs.say("start it again with: %s", d.restartCommand(i))
				if d.alive() == 0 {
					return fail("nodes_died", "", "no node is left")
				}
				continue
			}
			if err := pause(ctx, devRestart); err != nil {
				return nil
			}
			if err := d.launch(i); err != nil {
				return err
			}
			if err := d.writeCluster(); err != nil {
				return err
			}
		}
	}
}
