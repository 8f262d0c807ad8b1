package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"imroute/node/admin"
)

func newClusterStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the cluster's state", Args: args(0),
		Long: "Status shows the cluster as the asked node sees it. It exits with 2 if the cluster is degraded and with 4\nif it has no quorum.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runClusterStatus(cmd.Context()) },
	}
}

func (a *app) runClusterStatus(ctx context.Context) error {
	return a.withAdmin(ctx, func(ctx context.Context, c *admin.Client) error {
		s, err := c.ClusterStatus(ctx)
		if err != nil {
			return err
		}
		if a.asJSON() {
			if err := a.printJSON(s); err != nil {
				return err
			}
			return healthExit(s.Health)
		}
		var f fields
		f.add("cluster", s.ClusterID)
		f.add("health", s.Health)
		f.add("answered by", s.Node)
		f.add("leader", orNone(s.Leader))
		f.add("term", s.Term)
		f.add("applied index", s.AppliedIndex)
		f.add("voters", fmt.Sprintf("%d, %d make a quorum", s.Voters, s.Quorum))
		nodes := fmt.Sprintf("%d up, %d down", s.NodesUp, s.NodesDown)
		if s.Health == admin.HealthNoQuorum || s.Health == admin.HealthElecting {
			nodes += " (as last agreed on: without a leader nobody is declared down)"
		}
		f.add("nodes", nodes)
		f.add("routes", s.Routes)
		f.add("generation", s.Generation)
		f.add("feature level", levelText(s))
		f.add("duplicate logins", s.Settings.DuplicateLogin)
		f.add("one per class", yesNo(s.Settings.OnePerClass))
		f.add("target voters", s.Settings.TargetVoters)
		if err := f.write(a.io.Out); err != nil {
			return err
		}
		for _, p := range s.Problems {
			if err := a.printf("problem: %s\n", printable(p)); err != nil {
				return err
			}
		}
		return healthExit(s.Health)
	})
}

// levelText says what is agreed on and what could be.
func levelText(s admin.ClusterStatus) string {
	switch {
	case s.PossibleLevel > s.FeatureLevel:
		return fmt.Sprintf("%d, possible %d (raise it with \"cluster upgrade\")", s.FeatureLevel, s.PossibleLevel)
	case len(s.HeldBackBy) > 0:
		return fmt.Sprintf("%d, held back by %s", s.FeatureLevel, strings.Join(s.HeldBackBy, ", "))
	}
	return fmt.Sprint(s.FeatureLevel)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// healthExit gives an answer that was already printed its exit code. A health that this version does not know is not ok.
func healthExit(health string) error {
	switch health {
	case admin.HealthOK:
		return nil
	case admin.HealthNoQuorum:
		return &failure{exit: ExitNoQuorum, code: health, text: health, quiet: true}
	}
	return &failure{exit: ExitDegraded, code: health, text: health, quiet: true}
}
