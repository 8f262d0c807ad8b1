package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newContextCmd(a *app) *cobra.Command {
	return group("context", "See and change which cluster imctl remembers",
		newContextShowCmd(a), newContextUseCmd(a), newContextClearCmd(a))
}

// contextOutput is the JSON of "imctl context show".
type contextOutput struct {
	File     string           `json:"file"`
	Current  string           `json:"current"`
	Contexts []clusterContext `json:"contexts"`
}

func newContextShowCmd(a *app) *cobra.Command {
	var secrets bool
	c := &cobra.Command{
		Use: "show", Short: "Show the remembered clusters", Args: args(0),
		RunE: func(*cobra.Command, []string) error { return a.runContextShow(secrets) },
	}
	c.Flags().BoolVar(&secrets, "secrets", false, "show tokens, too")
	return c
}

func (a *app) runContextShow(secrets bool) error {
	path := a.contextPath()
	f := contextFile{Version: 1}
	if path != "" {
		var err error
		if f, err = readContextFile(path); err != nil {
			return err
		}
	}
	if !secrets {
		for i := range f.Contexts {
			if f.Contexts[i].Token != "" {
				f.Contexts[i].Token = "***"
			}
		}
	}
	if a.asJSON() {
		if f.Contexts == nil {
			f.Contexts = []clusterContext{}
		}
		return a.printJSON(contextOutput{path, f.Current, f.Contexts})
	}
	a.note("%s", path)
	t := newTable("", "NAME", "CLUSTER", "MODE", "ADMIN", "CLIENT", "TOKEN", "DATA")
	for _, c := range f.Contexts {
		mark, mode := " ", "normal"
		if c.Name == f.Current {
			mark = "*"
		}
		if c.Dev {
			mode = "dev"
		}
		t.row(mark, c.Name, c.Cluster, mode, strings.Join(c.Admin, ","), strings.Join(c.Client, ","), c.Token, c.Data)
	}
	return t.write(a.io.Out)
}

func newContextUseCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Switch to a remembered cluster, or remember one",
		Long: "Use makes the cluster called NAME the current one. With --addr (and --token, --token-file, --ca where needed)\n" +
			"it asks that node who it is and remembers its cluster under NAME.",
		Args: args(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runContextUse(cmd.Context(), args[0]) },
	}
}

func (a *app) runContextUse(ctx context.Context, name string) error {
	var learned *clusterContext
	if len(a.addrs) > 0 {
		c, err := a.learn(ctx, name)
		if err != nil {
			return err
		}
		learned = &c
	}
	err := a.updateContext(func(f *contextFile) error {
		if learned != nil {
			f.merge(*learned)
			if i := f.find(f.Current); i >= 0 && f.Contexts[i].Name != name {
				f.Contexts[i].Name, f.Current = name, name // known under another name until now
			}
			return nil
		}
		i := f.find(name)
		if i < 0 {
			return &failure{exit: ExitNotFound, code: "not_found", text: "no cluster called " + name + " is remembered", hint: "\"" + a.program() + " context show\" lists them; --addr remembers a new one"}
		}
		f.Current = f.Contexts[i].Name
		name = f.Current
		return nil
	})
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(map[string]string{"current": name})
	}
	return a.printf("using %s\n", printable(name))
}

// learn asks the node that --addr names about its cluster.
func (a *app) learn(ctx context.Context, name string) (clusterContext, error) {
	t, err := a.adminTarget(true)
	if err != nil {
		return clusterContext{}, err
	}
	c := clusterContext{Name: name, Admin: t.admin, Token: t.token, CA: t.ca}
	err = a.withAdmin(ctx, func(ctx context.Context, api *admin.Client) error {
		s, err := api.ClusterStatus(ctx)
		if err != nil {
			return err
		}
		nodes, err := api.Nodes(ctx)
		if err != nil {
			return err
		}
		c.Cluster = s.ClusterID
		for _, n := range nodes {
			if n.ClientTCP != "" && n.State != admin.StateDown {
				c.Client = append(c.Client, n.ClientTCP)
			}
			if n.Admin != "" && n.State != admin.StateDown {
				c.Admin = front(c.Admin, nil)
				c.Admin = appendNew(c.Admin, n.Admin)
			}
		}
		return nil
	})
	return c, err
}

func appendNew(list []string, s string) []string {
	for _, o := range list {
		if o == s || strings.TrimPrefix(strings.TrimPrefix(o, "https://"), "http://") == s {
			return list
		}
	}
	return append(list, s)
}

func newContextClearCmd(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "clear [NAME]", Short: "Forget the current cluster, or the one called NAME, or all", Args: args(0, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return a.runContextClear(name, all)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "forget all clusters")
	return c
}

func (a *app) runContextClear(name string, all bool) error {
	err := a.updateContext(func(f *contextFile) error {
		if all {
			*f = contextFile{Version: 1, Contexts: []clusterContext{}}
			return nil
		}
		if name == "" {
			if name = f.Current; name == "" {
				return nil // nothing to forget
			}
		}
		i := f.find(name)
		if i < 0 {
			return &failure{exit: ExitNotFound, code: "not_found", text: "no cluster called " + name + " is remembered", hint: "\"" + a.program() + " context show\" lists them"}
		}
		f.forget(f.Contexts[i].Name)
		return nil
	})
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(map[string]bool{"cleared": true})
	}
	return nil
}
