package cli

import "github.com/spf13/cobra"

const exitCodesHelp = `imctl's exit codes

  0  done; for "client send": delivered (with --ack none: taken for sending);
     commands that run until they are stopped: stopped by Ctrl-C or SIGTERM
  1  error: wrong usage, no node answers, refused, time-out, outcome not known
  2  degraded: "cluster status" and "cluster health" found the cluster working
     but not whole; "raft verify" did not hear from every node; "route check"
     found a difference that is left, or did not hear from every node
  3  not found: no such node, token or route; "client send": recipient offline
  4  no quorum: the cluster cannot decide anything at the moment (unavailable);
     nothing was changed, try again later

Errors are written to the error stream as "imctl: what happened" and a line
"hint: what to do next". With --output json they are one JSON object:
  {"error":{"code":"not_found","message":"…","hint":"…","exit":3}}`

const environmentHelp = `Environment variables that imctl reads

  IMCTL_ADDR         admin addresses, comma-separated, where --addr is not given
  IMCTL_CLIENT_ADDR  client addresses for "client connect" and "client send"
  IMCTL_TOKEN        token for the admin API, where --token is not given
  IMCTL_CONTEXT      the file that remembers clusters, instead of
                     imroute/context.json in the user's configuration folder
  NO_COLOR           set to anything: no colours

What is not given by a flag comes from these, and then from the current context
("imctl context show"). A remembered token is only sent to remembered addresses.`

// helpTopics are texts for "imctl help TOPIC".
func helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What imctl's exit codes mean", Long: exitCodesHelp},
		{Use: "environment", Short: "Which environment variables imctl reads", Long: environmentHelp},
	}
}
