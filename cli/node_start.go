package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imroute/node"
)

type nodeStartOptions struct {
	*app
	nodeSettings
	config     string
	noContext  bool
	parentPipe bool
}

// closeTimeout bounds the orderly end of a node.
const closeTimeout = 15 * time.Second

func newNodeStartCmd(a *app) *cobra.Command {
	o := &nodeStartOptions{app: a}
	c := &cobra.Command{
		Use: "start --name NAME --data DIR (--bootstrap | --join ADDR --token TOKEN | --discover lan --cluster NAME --secret SECRET)", Short: "Run a node until it is stopped",
		Long: `Start runs a node in the foreground until SIGINT or SIGTERM, or until it leaves the cluster.

The first node founds the cluster, the others join it, each with a token:
  imctl node start --name n1 --data d1 --bootstrap
  imctl cluster token create
  imctl node start --name n2 --data d2 --join ADDR --token TOKEN
On one local network no addresses are needed, and every node is started with the same words:
  imctl node start --discover lan --cluster NAME --secret SECRET
The first ones agree on who founds the cluster, later ones find it and join. If the network is split in two at that
moment, each part may found a cluster of its own; with --bootstrap-expect N none is founded until N nodes hear each other,
so choose more than half of all the nodes there will be. Two clusters that hear each other later say so loudly ("imctl
cluster health"); one must then be given up. The node listens for peers and clients on the machine's address on that
network, and for the admin API on loopback; without --data it keeps its state in ./imroute-data.
A node for oneself, without tokens, that a program on this machine can talk to at once:
  imctl node start --dev
A node that has a data folder comes back as itself, no other flags needed:
  imctl node start --data d1

Every flag can stand in the file that --config names, one "flag: value" a line
(YAML); the command line wins.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.config != "" {
				if err := readNodeConfig(o.config, cmd.LocalNonPersistentFlags()); err != nil {
					return err
				}
			}
			if len(a.addrs) > 0 {
				return usage("say where to listen with --mesh, --client, --client-ws and --admin; whom to join with --join", "--addr means nothing to \"node start\"")
			}
			return o.run(cmd.Context())
		},
	}
	o.flags(c.Flags())
	c.Flags().StringVar(&o.config, "config", "", "YAML file with the same keys as these flags")
	c.Flags().BoolVar(&o.noContext, "no-context", false, "do not remember this cluster as the current one")
	c.Flags().BoolVar(&o.parentPipe, "parent-pipe", false, "end when the input ends")
	_ = c.Flags().MarkHidden("parent-pipe") // the flag exists
	return c
}

func (o *nodeStartOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	log, err := newLogger(o.io.Err, o.logLevel, o.logFormat)
	if err != nil {
		return err
	}
	takeBallast()
	o.leaveLoopback(log)
	ports := newPortPicker()
	defer ports.close() // with the process: who chooses meanwhile does not even try what is reserved
	ports.keptByDev(o.data)
	if !o.explicitBinds() {
		if err := chooseBinds(&o.nodeSettings, ports); err != nil {
			return err
		}
		tellMoved(&o.nodeSettings, log)
	} else {
		rememberedBinds(&o.nodeSettings)
		if !o.parentPipe { // "imctl dev" holds its nodes' ports
			ports.hold(o.nodeSettings)
		}
	}
	n, err := o.startServer(o.nodeSettings, log)
	if err != nil {
		return o.startError(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.parentPipe {
		go func() { // ends with the input, at the latest with the process
			_, _ = io.Copy(io.Discard, o.io.In) // its end is all that matters
			cancel(errInterrupted)
		}()
	}
	if err := n.Open(ctx); err != nil {
		if ctx.Err() != nil && interrupted(ctx) {
			return nil
		}
		return o.startError(err)
	}
	if err := rememberBinds(o.nodeSettings, n.Bound()); err != nil {
		log.Warn("cannot remember where this node listens; it may listen elsewhere the next time", "err", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }() // ends after Close at the latest

	select {
	case <-n.Ready():
		err = o.announce(n, log)
	case <-ctx.Done():
	case err = <-ended:
		ended <- err
	}
	if err == nil {
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-ended:
		}
	}
	return o.close(n, err)
}

// close ends the node in order; a second signal or closeTimeout ends it at once.
func (o *nodeStartOptions) close(n server, why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	go func() {
		select {
		case <-o.force:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := n.Close(ctx)
	if why != nil {
		return o.startError(why)
	}
	if err != nil {
		return fail("close", "", "the node did not end in order: %w", err)
	}
	return nil
}

// announce prints the one line that says the node is ready, and remembers the cluster.
func (o *nodeStartOptions) announce(n server, log *slog.Logger) error {
	addrs := n.Addrs()
	if !o.noContext {
		c := clusterContext{Cluster: n.ClusterID(), Dev: n.Dev(), Token: n.AdminToken(), Client: []string{addrs.ClientTCP}, Admin: []string{addrs.Admin}}
		if o.clientCert != "" {
			c.Client = []string{"tls://" + addrs.ClientTCP}
		}
		if o.adminCert != "" || o.adminNodeCert {
			c.Admin = []string{"https://" + addrs.Admin}
		}
		if o.adminNodeCert {
			c.CA = filepath.Join(absolute(o.data), clusterCAFile)
		}
		if o.contextPath() != "" {
			if err := o.updateContext(func(f *contextFile) error { f.merge(c); return nil }); err != nil {
				log.Warn("this cluster was not remembered as the current one", "err", err)
			}
		}
	}
	if o.asJSON() {
		return o.printLine(map[string]any{
			"event": "ready", "name": n.Name(), "cluster": n.ClusterID(), "pid": os.Getpid(),
			"mesh": addrs.Mesh, "client_tcp": addrs.ClientTCP, "client_ws": addrs.ClientWS, "admin": addrs.Admin,
		})
	}
	return o.printf("node %s is ready: mesh %s, client %s, websocket %s, admin %s\n", n.Name(), addrs.Mesh, addrs.ClientTCP, addrs.ClientWS, addrs.Admin)
}

// check finds what can be said before anything is started.
func (o *nodeStartOptions) check() error {
	self := o.program() + " node start"
	if err := o.checkDiscover(); err != nil {
		return err
	}
	if o.webhookSecret != "" && o.webhookSecretFile != "" {
		return usage("", "--webhook-secret and --webhook-secret-file exclude each other")
	}
	if o.webhookSecretFile != "" {
		var err error
		if o.webhookSecret, err = readSecret(o.webhookSecretFile); err != nil {
			return err
		}
	}
	if o.data == "" {
		return usage("for example \""+self+" --name n1 --data ./n1 --bootstrap\"", "--data is missing: a node needs a folder to keep its state in")
	}
	if o.bootstrap && len(o.join) > 0 {
		return usage("the first node of a new cluster takes --bootstrap, every other one --join", "--bootstrap and --join exclude each other")
	}
	if o.joinToken != "" && o.joinTokenFile != "" {
		return usage("", "--token and --token-file exclude each other")
	}
	if o.joinTokenFile != "" {
		var err error
		if o.joinToken, err = readSecret(o.joinTokenFile); err != nil {
			return err
		}
	}
	if o.joinToken != "" && len(o.join) == 0 {
		return usage("name the mesh address of any member: --join HOST:PORT", "--token without --join")
	}
	if o.bootstrap && o.joinToken != "" {
		return usage("", "--bootstrap takes no token")
	}
	member, err := isMember(o.data)
	if err != nil {
		return fail("data", "check --data", "cannot use the data folder: %w", err)
	}
	if member {
		return nil // who it is and where its peers are stands in there; --bootstrap and --join are harmless
	}
	switch {
	case o.discover == node.DiscoverLAN:
		return o.checkNewcomer(self)
	case o.bootstrap, len(o.join) > 0 && o.joinToken != "":
	case len(o.join) > 0:
		return usage("make one on a member with \""+o.program()+" cluster token create\" and give it with --token", "a new node needs a token to join, and --token is missing")
	default:
		return usage("to found a new cluster: "+self+" --name "+orName(o.name)+" --data "+o.data+" --bootstrap\n"+
			"to join one: "+self+" --name "+orName(o.name)+" --data "+o.data+" --join ADDR --token TOKEN  (\""+o.program()+" cluster token create\" makes the token)\n"+
			"to do either, whichever it takes, on a local network: "+self+" --data "+o.data+" --discover lan --cluster NAME --secret SECRET",
			"%s is new: this node is not a member of any cluster yet", o.data)
	}
	if o.name == "" {
		return usage("for example --name n1", "--name is missing: a new node needs a name")
	}
	return nil
}

func orName(name string) string {
	if name == "" {
		return "n1"
	}
	return name
}

// isMember tells whether a data folder belongs to a node that has founded or joined a cluster. What an attempt that
// failed has left in it does not count.
func isMember(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, memberFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// startError explains what a node could not be started for.
func (o *nodeStartOptions) startError(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	f = asFailure(err, o.timeout.String())
	text := err.Error()
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.EADDRINUSE) || strings.Contains(text, "address already in use") || strings.Contains(text, "Only one usage of each socket address"):
		f.code, f.hint = "address_in_use", "another node or program listens there: stop it, or choose others with --mesh, --client, --client-ws and --admin"
		if errors.As(err, &op) && op.Addr != nil && !strings.Contains(text, op.Addr.String()) {
			f.text = op.Addr.String() + ": " + text
		}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.code, f.hint = "address", "this machine does not have that address: listen on one it has, and tell others another one with --advertise"
	}
	return f
}

func absolute(path string) string {
	if p, err := filepath.Abs(path); err == nil {
		return p
	}
	return path
}

// newLogger logs to w.
func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	switch level {
	case "debug", "info", "warn", "error":
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("log level: %w", err)
		}
	default:
		return nil, usage("", "--log-level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usage("", "--log-format %q: want text or json", format)
}
