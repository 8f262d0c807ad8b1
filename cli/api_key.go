package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type keyCreateOptions struct {
	*app
	name, tenant string
	bound        bool
	scopes       []string
	ttl          time.Duration
}

func newKeyCreateCmd(a *app) *cobra.Command {
	o := &keyCreateOptions{app: a}
	c := &cobra.Command{
		Use: "create", Short: "Make an API key", Args: args(0),
		Long: "Create prints a key, and nothing else. It is shown once: the cluster keeps only its hash. A back end sends it to any\n" +
			"node's admin port as \"Authorization: Bearer KEY\". GET /v1/openapi.yaml there describes what it can ask and which\n" +
			"scope each call needs.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.bound = cmd.Flags().Changed("tenant")
			return o.run(cmd.Context())
		},
	}
	c.Flags().StringSliceVar(&o.scopes, "scope", nil, "what it may do: send, presence, groups, kick, assign, admin (everything)")
	c.Flags().StringVar(&o.name, "name", "", "a label, for people")
	c.Flags().StringVar(&o.tenant, "tenant", "", "the only tenant it is for, \"\" for the default one (default: all)")
	c.Flags().DurationVar(&o.ttl, "ttl", 0, "how long it can be used (default: for ever)")
	_ = c.MarkFlagRequired("scope") // the flag exists
	return c
}

func (o *keyCreateOptions) run(ctx context.Context) error {
	if o.ttl != 0 && o.ttl < time.Second {
		return usage("", "--ttl must be at least 1s")
	}
	q := admin.APIKeyRequest{Name: o.name, Scopes: o.scopes, TTLSeconds: uint32(min((o.ttl+time.Second-1)/time.Second, 1<<31))}
	if o.bound {
		q.Tenant = &o.tenant
	}
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		k, err := c.CreateAPIKey(ctx, q)
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(k)
		}
		return o.printf("%s\n", k.Key)
	})
}

func newKeyListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List API keys, without their secrets", Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runKeyList(cmd.Context()) },
	}
}

func (a *app) runKeyList(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		keys, err := c.APIKeys(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			if keys == nil {
				keys = []admin.APIKeyInfo{}
			}
			return a.printJSON(keys)
		}
		t := newTable("ID", "NAME", "SCOPES", "TENANT", "EXPIRES")
		for _, k := range keys {
			tenant, expires := "all", "never"
			if k.Tenant != nil {
				tenant = "\"" + *k.Tenant + "\""
			}
			if k.Expires != nil {
				expires = k.Expires.UTC().Format(time.RFC3339)
			}
			if k.Expired {
				expires += " (expired)"
			}
			t.row(k.ID, k.Name, strings.Join(k.Scopes, ","), tenant, expires)
		}
		return t.write(a.io.Out)
	})
}

func newKeyRevokeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End an API key", Args: args(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runKeyRevoke(cmd.Context(), args[0]) },
	}
}

func (a *app) runKeyRevoke(ctx context.Context, id string) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		r, err := c.RevokeAPIKey(ctx, id)
		if err != nil {
			return err
		}
		if a.asJSON() {
			return a.printJSON(map[string]any{"id": id, "revoked": true, "unconfirmed": r.Unconfirmed})
		}
		if len(r.Unconfirmed) > 0 {
			a.note("revoked; %s did not confirm in time and may take it until it hears of that", printable(strings.Join(r.Unconfirmed, ", ")))
		}
		return a.printf("%s can no longer be used\n", printable(id))
	})
}
