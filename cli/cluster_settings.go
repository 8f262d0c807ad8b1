package cli

import (
	"context"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

type clusterSettingsOptions struct {
	*app
	duplicate   string
	onePerClass bool
	voters      uint32
	change      admin.SettingsChange
}

func newClusterSettingsCmd(a *app) *cobra.Command {
	o := &clusterSettingsOptions{app: a}
	c := &cobra.Command{
		Use: "settings", Short: "Show the settings that hold for all nodes, or change them", Args: args(0),
		Long: `Settings shows what the nodes have agreed on. With a flag it changes that for the whole cluster at once.

--duplicate-login says what a login under a client id that is online does: replace the session there, or be rejected.
--one-per-class makes that so for all devices of one class of a user. The class of the client id alice/phone:7f3a is what
stands between "/" and ":", "phone", and that of alice/web is "web": a second phone of alice then replaces the first (or
is rejected), while her web session stays. An id without "/" is in no class. Turning it on ends no session; devices of a
class that are online together stay until the next login of that class. --one-per-class=false turns it off.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("duplicate-login") {
				o.change.DuplicateLogin = &o.duplicate
			}
			if cmd.Flags().Changed("one-per-class") {
				o.change.OnePerClass = &o.onePerClass
			}
			if cmd.Flags().Changed("target-voters") {
				o.change.TargetVoters = &o.voters
			}
			return o.run(cmd.Context())
		},
	}
	c.Flags().StringVar(&o.duplicate, "duplicate-login", "", "what a second login under one id does: replace or reject")
	c.Flags().BoolVar(&o.onePerClass, "one-per-class", false, "a user has one session for each class of device at most: of ids user/class:device and user/class")
	c.Flags().Uint32Var(&o.voters, "target-voters", 0, "promote joiners up to this many voters: 1, 3, 5 or 7")
	_ = c.RegisterFlagCompletionFunc("duplicate-login", cobra.FixedCompletions([]string{admin.DuplicateReplace, admin.DuplicateReject}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

func (o *clusterSettingsOptions) run(ctx context.Context) error {
	return o.withAdmin(ctx, func(ctx context.Context, c *admin.Client) (err error) {
		var s admin.Settings
		if o.change == (admin.SettingsChange{}) {
			s, err = c.Settings(ctx)
		} else {
			s, err = c.ChangeSettings(ctx, o.change)
		}
		if err != nil {
			return err
		}
		if o.asJSON() {
			return o.printJSON(s)
		}
		var f fields
		f.add("duplicate-login", s.DuplicateLogin)
		f.add("one-per-class", yesNo(s.OnePerClass))
		f.add("target-voters", s.TargetVoters)
		return f.write(o.io.Out)
	})
}
