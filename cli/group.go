package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

func newGroupCmd(a *app) *cobra.Command {
	return group("group", "See groups and their members, send to them, close them",
		newGroupListCmd(a), newGroupMembersCmd(a), newGroupSendCmd(a), newGroupCloseCmd(a))
}

// groupOptions are shared by the commands on groups.
type groupOptions struct {
	*app
	tenant string
}

func (o *groupOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the group")
}

// checkGroup checks a group named as an argument.
func checkGroup(name string) error {
	if err := wire.ToGroup.ValidateTo(name); err != nil {
		return usage("", "%w", err)
	}
	return nil
}

// missing warns of nodes that did not answer.
func (o *groupOptions) missing(errs []admin.NodeError) error {
	for _, e := range errs {
		if err := o.printf("not counted: %s (%s)\n", printable(e.Node), printable(e.Error)); err != nil {
			return err
		}
	}
	return nil
}

// eachPage asks for page after page until there is none, or limit rows (0: all) are there. ask says how many rows came and where
// the next page begins.
func (o *groupOptions) eachPage(limit int, ask func(q admin.GroupQuery) (rows int, next string, err error)) error {
	q := admin.GroupQuery{Tenant: o.tenant}
	for have := 0; ; {
		if q.Limit = admin.MaxPage; limit > 0 {
			q.Limit = min(limit-have, admin.MaxPage)
		}
		rows, next, err := ask(q)
		have += rows
		if err != nil || next == "" || limit > 0 && have >= limit {
			return err
		}
		q.Cursor = next
	}
}

type groupListOptions struct {
	groupOptions
	limit int
}

func newGroupListCmd(a *app) *cobra.Command {
	o := &groupListOptions{groupOptions: groupOptions{app: a}}
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List groups, their members and the nodes that these are on", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(c)
	c.Flags().IntVar(&o.limit, "limit", 0, "stop after this many (0: all)")
	return c
}

func (o *groupListOptions) run(ctx context.Context) error {
	if o.limit < 0 {
		return usage("", "--limit must not be negative")
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		all := admin.GroupPage{Groups: []admin.GroupRow{}, Errors: []admin.NodeError{}}
		err := o.eachPage(o.limit, func(q admin.GroupQuery) (int, string, error) {
			page, err := c.Groups(ctx, q)
			all.Groups, all.Next, all.Errors = append(all.Groups, page.Groups...), page.Next, page.Errors
			return len(page.Groups), page.Next, err
		})
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(all)
		}
		t := newTable("GROUP", "MEMBERS", "NODES")
		for _, g := range all.Groups {
			t.row(g.Group, g.Members, strings.Join(g.Nodes, ","))
		}
		if err := t.write(o.io.Out); err != nil {
			return err
		}
		return o.missing(all.Errors)
	})
}

type groupMembersOptions struct {
	groupOptions
	limit int
}

func newGroupMembersCmd(a *app) *cobra.Command {
	o := &groupMembersOptions{groupOptions: groupOptions{app: a}}
	c := &cobra.Command{
		Use: "members GROUP", Short: "List the members of a group, as the nodes that they are on say", Args: args(1, "GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.flags(c)
	c.Flags().IntVar(&o.limit, "limit", 0, "stop after this many (0: all)")
	return c
}

func (o *groupMembersOptions) run(ctx context.Context, name string) error {
	if err := checkGroup(name); err != nil {
		return err
	}
	if o.limit < 0 {
		return usage("", "--limit must not be negative")
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		all := admin.GroupMembers{Members: []admin.GroupMember{}}
		err := o.eachPage(o.limit, func(q admin.GroupQuery) (int, string, error) {
			page, err := c.GroupMembers(ctx, name, q)
			rows := len(page.Members)
			page.Members = append(all.Members, page.Members...)
			all = page
			return rows, page.Next, err
		})
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(all)
		}
		t := newTable("CLIENT", "NODE")
		for _, m := range all.Members {
			t.row(m.Client, m.Node)
		}
		if err := t.write(o.io.Out); err != nil {
			return err
		}
		if err := o.missing(all.Errors); err != nil {
			return err
		}
		return o.printf("%d members\n", all.Count)
	})
}

type groupSendOptions struct {
	groupOptions
	from, ack string
}

func newGroupSendCmd(a *app) *cobra.Command {
	o := &groupSendOptions{groupOptions: groupOptions{app: a}}
	c := &cobra.Command{
		Use: "send GROUP TEXT", Short: "Send to all members of a group and say how many were reached", Args: args(2, "GROUP", "TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.from, "from", "", "who the message is from (default \"api\")")
	c.Flags().StringVar(&o.ack, "ack", "owner", "who counts as reached: owner (written to the connection), client (acknowledged), none (nobody is counted)")
	return c
}

func (o *groupSendOptions) run(ctx context.Context, name, text string) error {
	if err := checkGroup(name); err != nil {
		return err
	}
	if _, err := wire.ParseAckMode(o.ack); err != nil {
		return usage("", "--ack: %w", err)
	}
	q := admin.SendRequest{From: o.from, Tenant: o.tenant, Kind: wire.ToGroup.String(), To: name, Payload: &text, Ack: o.ack, TimeoutMS: uint32(o.timeout.Milliseconds())}
	var r admin.SendResult
	if err := o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) (err error) {
		r, err = c.Send(ctx, q)
		return err
	}); err != nil {
		return err
	}
	if o.asJSON() {
		if err := o.printJSON(r); err != nil {
			return err
		}
	} else if err := o.printf("%s  %d reached%s  id %s\n", r.Result, r.Count, printable(missedText(int(r.Missed), r.MissedIDs)), r.ID); err != nil {
		return err
	}
	if r.Code == wire.Delivered || r.Code == wire.Accepted {
		return nil
	}
	hint := ""
	if r.Code == wire.Offline {
		hint = "nobody is in " + name
	}
	return codeError(r.Code, "", hint)
}

type groupCloseOptions struct {
	groupOptions
	reason string
}

func newGroupCloseCmd(a *app) *cobra.Command {
	o := &groupCloseOptions{groupOptions: groupOptions{app: a}}
	c := &cobra.Command{
		Use: "close GROUP", Short: "Remove all members of a group; each is told", Args: args(1, "GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.reason, "reason", "", "what to tell the members")
	return c
}

func (o *groupCloseOptions) run(ctx context.Context, name string) error {
	if err := checkGroup(name); err != nil {
		return err
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.CloseGroup(ctx, o.tenant, name, o.reason)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(r)
		}
		if err := o.missing(r.Errors); err != nil {
			return err
		}
		return o.printf("%s is closed: %d members were removed\n", printable(name), r.Count)
	})
}
