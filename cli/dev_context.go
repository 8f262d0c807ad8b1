package cli

import (
	"context"
	"slices"
	"strconv"
	"time"

	"imroute/node/admin"
)

// remember makes this cluster the current one. The first one is called dev; one beside others that run dev2, dev3 and so on. What
// was current before is told, and is current again at the end (giveBack).
func (d *dev) remember(ctx context.Context) error {
	if d.noContext || d.contextPath() == "" {
		return nil
	}
	c := clusterContext{Cluster: d.clusterID(ctx), Dev: true, Data: d.cluster.Data}
	for _, n := range d.cluster.Nodes {
		c.Admin = append(c.Admin, n.Admin)
		c.Client = append(c.Client, n.ClientTCP)
	}
	var before clusterContext
	if err := d.updateContext(func(f *contextFile) error {
		before = clusterContext{}
		f.Contexts = slices.DeleteFunc(f.Contexts, func(o clusterContext) bool { // addresses that it had the last time must not mix with these
			ours := o.Data == c.Data || o.Cluster != "" && o.Cluster == c.Cluster
			if ours {
				c.Name = o.Name
			}
			return ours
		})
		if c.Name == "" {
			c.Name = f.freeDevName()
		}
		if i := f.find(f.Current); i >= 0 && f.Current != c.Name {
			before = f.Contexts[i]
		}
		f.forget(c.Name) // of a dev that runs no more
		f.merge(c)
		return nil
	}); err != nil {
		return err
	}
	d.context, d.before = c.Name, before.Name
	switch {
	case before.Name == "":
	case before.Dev && before.Data != "" && devRuns(before.Data):
		d.logs.say("another \"imctl dev\" is running, the context %s (data: %s). Commands without --addr now mean this one, %s, and %s again when this one ends; \"%s context use %s\" switches now",
			before.Name, before.Data, c.Name, before.Name, d.program(), before.Name)
	case before.Data == "":
		d.logs.say("commands without --addr now mean this cluster, the context %s; at the end they mean %s again", c.Name, before.Name)
	}
	return nil
}

// freeDevName is a name for a new cluster that no running one has.
func (f *contextFile) freeDevName() string {
	for n := 1; ; n++ {
		name := "dev"
		if n > 1 {
			name += strconv.Itoa(n)
		}
		i := slices.IndexFunc(f.Contexts, func(o clusterContext) bool { return o.Name == name })
		if i < 0 || !devRuns(f.Contexts[i].Data) {
			return name
		}
	}
}

// devIDWait bounds how long the cluster is asked for its id.
const devIDWait = 5 * time.Second

// clusterID is what nodes that are started by hand know the cluster by; "" if nobody says.
func (d *dev) clusterID(ctx context.Context) string {
	var addrs []string
	for _, n := range d.cluster.Nodes {
		addrs = append(addrs, n.Admin)
	}
	c, err := admin.NewClient(admin.ClientConfig{Addrs: addrs, Timeout: devIDWait})
	if err != nil {
		return ""
	}
	defer c.Close()
	s, err := c.ClusterStatus(ctx)
	if err != nil {
		return ""
	}
	return s.ClusterID
}

// giveBack makes the cluster current that was so before, unless somebody has chosen another one meanwhile. What is known of this
// cluster is only forgotten with its data.
func (d *dev) giveBack() error {
	if d.context == "" {
		return nil
	}
	now := ""
	if err := d.updateContext(func(f *contextFile) error {
		i := slices.IndexFunc(f.Contexts, func(o clusterContext) bool { return o.Data == d.cluster.Data })
		if i < 0 {
			return nil
		}
		current := f.Current == f.Contexts[i].Name
		if d.data == "" {
			f.forget(f.Contexts[i].Name)
		}
		if now = f.fallBack(d.before, d.cluster.Data); current && now != "" {
			f.Current = now
		} else {
			now = ""
		}
		return nil
	}); err != nil {
		return err
	}
	if now != "" {
		d.logs.say("commands without --addr mean %s again", now)
	}
	return nil
}

// fallBack names the context to be current when the "imctl dev" of a folder ends: the one before it, if that is remembered and, if
// it is an "imctl dev" itself, runs; else another one that runs; else "".
func (f *contextFile) fallBack(before, data string) string {
	alive := func(c clusterContext) bool { return c.Dev && c.Data != "" && c.Data != data && devRuns(c.Data) }
	for _, c := range f.Contexts {
		if c.Name == before && (c.Data == "" || alive(c)) {
			return before
		}
	}
	for _, c := range f.Contexts {
		if alive(c) {
			return c.Name
		}
	}
	return ""
}
