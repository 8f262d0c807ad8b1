package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newNodeShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NODE", Short: "Show one node in detail", Args: args(1, "NODE"),
		ValidArgsFunction: a.completeNodes(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runNodeShow(cmd.Context(), args[0]) },
	}
}

func (a *app) runNodeShow(ctx context.Context, ref string) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		n, err := c.Node(ctx, ref)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(n)
		}
		var f fields
		f.add("name", n.Name)
		f.add("id", n.ID)
		f.add("role", n.Role)
		f.add("state", n.State)
		f.add("incarnation", n.Incarnation)
		f.add("version", n.Version)
		f.add("mesh", n.Mesh)
		f.add("client", n.ClientTCP)
		f.add("websocket", n.ClientWS)
		f.add("admin", n.Admin)
		f.add("clients", n.Clients)
		f.add("applied index", n.AppliedIndex)
		if d := n.Detail; n.Reachable && d != nil {
			f.add("raft", fmt.Sprintf("%s, term %d, commit %d, last log %d, snapshot %d", d.RaftState, d.Term, d.CommitIndex, d.LastLogIndex, d.SnapshotIndex))
			f.add("lease", leaseText(d.LeaseLeftMS))
			f.add("boot", d.Boot)
			f.add("uptime", time.Duration(d.UptimeSeconds)*time.Second)
			f.add("peers up", strings.Join(d.PeersUp, ", "))
			f.add("peers down", strings.Join(d.PeersDown, ", "))
			f.add("routes", d.Routes)
			f.add("logins", d.Logins)
			f.add("sends", d.Sends)
			f.add("store", bytesText(d.StoreBytes))
			f.add("fsync p99", short(time.Duration(d.FsyncP99US)*time.Microsecond))
			f.add("free disk", bytesText(d.FreeDiskBytes))
			f.add("heap", fmt.Sprintf("%s, %d goroutines", bytesText(d.HeapBytes), d.Goroutines))
		} else {
			f.add("reachable", "no: the node itself did not answer, this is what the others know")
		}
		return f.write(a.io.Out)
	})
}

func leaseText(leftMS int32) string {
	if leftMS < 0 {
		return fmt.Sprintf("lost %s ago: it delivers nothing", short(-time.Duration(leftMS)*time.Millisecond))
	}
	return short(time.Duration(leftMS)*time.Millisecond) + " left"
}

// bytesText writes a size with a binary unit.
func bytesText(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units, v := "KMGTPE", float64(n)/1024
	for len(units) > 1 && v >= 1024 {
		units, v = units[1:], v/1024
	}
	return fmt.Sprintf("%.1f %ciB", v, units[0])
}
