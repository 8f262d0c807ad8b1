package cli

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

type versionOptions struct {
	*app
	server bool
}

func newVersionCmd(a *app) *cobra.Command {
	o := &versionOptions{app: a}
	c := &cobra.Command{
		Use: "version", Short: "Print imctl's version, and a node's with --server", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	c.Flags().BoolVar(&o.server, "server", false, "also ask a node for its version")
	return c
}

// versionOutput is the JSON of "imctl version".
type versionOutput struct {
	Version         string             `json:"version"`
	Commit          string             `json:"commit"`
	Go              string             `json:"go"`
	OS              string             `json:"os"`
	Arch            string             `json:"arch"`
	ProtocolVersion int                `json:"protocol_version"`
	Server          *admin.VersionInfo `json:"server,omitempty"`
}

func (o *versionOptions) run(ctx context.Context) error {
	v := versionOutput{Version: buildVersion(), Commit: buildCommit(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, ProtocolVersion: wire.ProtocolVersion}
	if o.server {
		err := o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
			s, err := c.Version(ctx)
			v.Server = &s
			return err
		})
		if err != nil {
			return err
		}
	}
	if o.asJSON() {
		return o.printJSON(v)
	}
	if err := o.printf("imctl %s (%s, %s, %s/%s, client protocol %d)\n", v.Version, orNone(v.Commit), v.Go, v.OS, v.Arch, v.ProtocolVersion); err != nil {
		return err
	}
	if s := v.Server; s != nil {
		return o.printf("node %s: %s (%s, %s, %s/%s, client protocol %d)\n", printable(s.Node), printable(s.Version), orNone(printable(s.Commit)), printable(s.Go), printable(s.OS), printable(s.Arch), s.ProtocolVersion)
	}
	return nil
}

// buildCommit is the commit that the Go tool wrote into the binary, "" for "go run".
func buildCommit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if commit == "" {
		return ""
	}
	return commit + dirty
}
