package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newClusterTokenCmd(a *app) *cobra.Command {
	return group("token", "Make, list and revoke the tokens by which nodes join",
		newTokenCreateCmd(a), newTokenListCmd(a), newTokenRevokeCmd(a))
}

type tokenCreateOptions struct {
	*app
	ttl   time.Duration
	quiet bool
}

func newTokenCreateCmd(a *app) *cobra.Command {
	o := &tokenCreateOptions{app: a}
	c := &cobra.Command{
		Use: "create", Short: "Make a join token", Args: args(0),
		Long: "Create prints a join token, and nothing else, so that it can be used as\n  imctl node start --name n2 --data d2 --join ADDR --token \"$(imctl cluster token create)\"",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	c.Flags().DurationVar(&o.ttl, "ttl", admin.DefaultTokenTTL, "how long it can be used")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print the token without the note on how to use it")
	return c
}

func (o *tokenCreateOptions) run(ctx context.Context) error {
	if o.ttl < time.Second {
		return usage("", "--ttl must be at least 1s")
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		t, err := c.CreateToken(ctx, o.ttl)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(t)
		}
		if err := o.printf("%s\n", t.Token); err != nil {
			return err
		}
		if o.quiet || !o.io.ErrTTY {
			return nil
		}
		join := "ADDR"
		if nodes, err := c.Nodes(ctx); err == nil { // only for a better example
			for _, n := range nodes {
				if n.State == admin.StateUp {
					join = n.Mesh
					break
				}
			}
		}
		o.note("valid until %s; a new node joins with\n  %s node start --name NAME --data DIR --join %s --token %s",
			t.Expires.Local().Format(time.DateTime), o.program(), join, t.Token)
		return nil
	})
}

func newTokenListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List join tokens, without their secrets", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runTokenList(cmd.Context()) },
	}
}

func (a *app) runTokenList(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		tokens, err := c.Tokens(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			if tokens == nil {
				tokens = []admin.JoinTokenInfo{}
			}
			return a.printJSON(tokens)
		}
		t := newTable("ID", "EXPIRES", "STATE")
		for _, k := range tokens {
			state := "valid"
			if k.Expired {
				state = "expired"
			}
			t.row(k.ID, k.Expires.UTC().Format(time.RFC3339), state)
		}
		return t.write(a.io.Out)
	})
}

func newTokenRevokeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a join token; nodes that joined by it stay", Args: args(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runTokenRevoke(cmd.Context(), args[0]) },
	}
}

func (a *app) runTokenRevoke(ctx context.Context, id string) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		if err := c.RevokeToken(ctx, id); err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(map[string]any{"id": id, "revoked": true})
		}
		return a.printf("%s can no longer be used\n", printable(id))
	})
}
