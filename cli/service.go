package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

func newServiceCmd(a *app) *cobra.Command {
	return group("service", "See services and their instances (\"client serve\" is one, \"client request\" asks one)",
		newServiceListCmd(a))
}

type serviceListOptions struct {
	groupOptions
	limit int
}

func newServiceListCmd(a *app) *cobra.Command {
	o := &serviceListOptions{groupOptions: groupOptions{app: a}}
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List services, their instances, and the requests that these have open", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the services")
	c.Flags().IntVar(&o.limit, "limit", 0, "stop after this many (0: all)")
	return c
}

func (o *serviceListOptions) run(ctx context.Context) error {
	if o.limit < 0 {
		return usage("", "--limit must not be negative")
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		all := admin.ServicePage{Services: []admin.ServiceRow{}, Errors: []admin.NodeError{}}
		err := o.eachPage(o.limit, func(q admin.GroupQuery) (int, string, error) {
			page, err := c.Services(ctx, q)
			all.Services, all.Next, all.Errors = append(all.Services, page.Services...), page.Next, page.Errors
			return len(page.Services), page.Next, err
		})
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(all)
		}
		t := newTable("SERVICE", "INSTANCES", "OPEN", "NODES")
		for _, s := range all.Services {
			t.row(s.Service, s.Instances, s.Open, strings.Join(s.Nodes, ","))
		}
		if err := t.write(o.io.Out); err != nil {
			return err
		}
		return o.missing(all.Errors)
	})
}

// checkService checks a service named as an argument.
func checkService(name string) error {
	if err := wire.ToService.ValidateTo(name); err != nil {
		return usage("", "%w", err)
	}
	return nil
}
