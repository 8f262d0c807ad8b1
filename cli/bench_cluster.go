package cli

import (
	"context"
	"errors"
	"strings"
	"sync"

	"imroute/cli/bench"
)

// benchCluster is a cluster of node processes that "imctl bench" started for itself.
type benchCluster struct {
	dev     *dev
	logs    *tail
	cleanup []func() error // in the order of their making
}

// startBenchCluster starts one in development mode, on temporary data, that nobody remembers.
func (o *benchOptions) startBenchCluster(ctx context.Context) (_ *benchCluster, err error) {
	if o.io.Executable == "" {
		return nil, fail("dev", "name a running cluster with --addr", "the program's own file is not known, so it cannot start nodes")
	}
	opts := &devOptions{app: o.app, nodes: o.nodes, portBase: o.portBase, noContext: true, logLevel: o.logLevel, nodeFlags: o.nodeFlags}
	b := &benchCluster{logs: &tail{limit: 8 << 10}}
	defer func() {
		if err != nil {
			_ = b.stop() // the first error is the one to tell
		}
	}()
	data, remove, err := opts.folder()
	if err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, remove)
	ports := newPortPicker()
	b.cleanup = append(b.cleanup, func() error { ports.close(); return nil })
	plan, err := planDev(data, o.nodes, true, o.portBase, ports)
	if err != nil {
		return nil, err
	}
	b.dev = &dev{
		devOptions: opts, plan: plan, cluster: devCluster{Data: data, Nodes: make([]devNode, len(plan))},
		children: make([]*child, len(plan)), died: make(chan int, len(plan)), logs: newLogMux(b.logs, false),
	}
	for i, p := range plan {
		b.dev.cluster.Nodes[i] = devNode{Name: p.name, Addrs: p.addrs}
	}
	if err := b.dev.start(ctx); err != nil {
		if interrupted(ctx) {
			return nil, errInterrupted
		}
		f := fail("dev", "", "cannot start a cluster: %w", err)
		if last := b.logs.text(); last != "" {
			f.hint = "the nodes' last words:\n" + last
		}
		return nil, f
	}
	return b, nil
}

// target says where its nodes are.
func (b *benchCluster) target(t *bench.Target, transport string) {
	t.Own = true
	for _, n := range b.dev.cluster.Nodes {
		addr := n.ClientTCP
		if transport == "ws" {
			addr = "ws://" + n.ClientWS
		}
		t.Addrs, t.PIDs = append(t.Addrs, addr), append(t.PIDs, n.PID)
	}
}

// kill ends a node without a goodbye.
func (b *benchCluster) kill(i int) error {
	c := b.dev.children[i]
	c.kill()
	<-c.exited
	return nil
}

// stop ends the nodes at once, whose data nobody will miss, and removes it.
func (b *benchCluster) stop() error {
	var all []error
	if b.dev != nil {
		b.dev.killAll()
		all = append(all, b.dev.stop())
	}
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		all = append(all, b.cleanup[i]())
	}
	b.cleanup = nil
	return errors.Join(all...)
}

// tail keeps the last bytes written. It may be used by several goroutines.
type tail struct {
	limit int

	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - t.limit; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
