package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

func newClientCmd(a *app) *cobra.Command {
	return group("client", "Be a client: connect, send, make tokens",
		newClientConnectCmd(a), newClientSendCmd(a), newClientServeCmd(a), newClientRequestCmd(a), newClientTokenCmd(a), newClientAssignCmd(a))
}

// loginOptions are shared by the commands that log in as a client.
type loginOptions struct {
	*app
	as, tenant, clientToken string
	assignFrom              []string

	refused refusals
}

func (o *loginOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.as, "as", "", "client id to log in as")
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant of the client")
	c.Flags().StringSliceVar(&o.assignFrom, "assign-from", nil, "ask these nodes' WebSocket ports, http://HOST:PORT, where to connect before anything else")
	c.Flags().StringVar(&o.clientToken, "client-token", "", "login token (default: one made through the admin API, unless the cluster runs in development mode)")
}

// clientTokenTTL is how long the tokens hold that imctl makes for its own logins; longer sessions get another one.
const clientTokenTTL = time.Hour

// config finds out where and how to log in: --addr, else IMCTL_CLIENT_ADDR, else the current context, else what the
// admin API that IMCTL_ADDR names knows.
func (o *loginOptions) config(ctx context.Context) (client.Config, error) {
	id, err := clientID(o.tenant, o.as)
	if err != nil {
		return client.Config{}, err
	}
	cfg := client.Config{Client: id.ID, Tenant: id.Tenant, Token: o.clientToken, AssignFrom: o.assignFrom, DialContext: o.refused.watch(o.io.dialer()), LoginTimeout: o.timeout, OnState: o.refused.note}
	if cfg.TLS, err = tlsConfig(o.ca); err != nil {
		return cfg, err
	}
	api, apiErr := o.adminTarget(false)
	if cfg.Addrs, err = o.clientAddrs(ctx, api, apiErr); err != nil {
		return cfg, err
	}
	if cfg.Token == "" && apiErr == nil && !(api.fromContext && api.context.Dev) {
		err := o.ownToken(ctx, &cfg, api, id)
		if err != nil && len(o.addrs) == 0 {
			return cfg, err
		} // a cluster that was named by a client address may be another one than the admin API's
	}
	return cfg, nil
}

// clientAddrs finds client addresses.
func (o *loginOptions) clientAddrs(ctx context.Context, api target, apiErr error) ([]string, error) {
	if addrs := splitAddrs(o.addrs...); len(addrs) > 0 {
		for _, addr := range addrs {
			if err := checkClientAddr(addr); err != nil {
				return nil, err
			}
		}
		return addrs, nil
	}
	if addrs := splitAddrs(o.env("IMCTL_CLIENT_ADDR")); len(addrs) > 0 {
		return addrs, nil
	}
	if api.remembered && len(api.context.Client) > 0 && (apiErr != nil || api.fromContext) {
		addrs := slices.Clone(api.context.Client)
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] }) // nobody asked for an order: spread
		return addrs, nil
	}
	if apiErr != nil {
		return nil, apiErr
	}
	c, err := api.dial(o.app)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, o.adminError(api, err)
	}
	var addrs []string
	draining := 0
	for _, n := range nodes {
		if n.State == admin.StateUp && n.ClientTCP != "" {
			addrs = append(addrs, n.ClientTCP)
		}
		if n.State == admin.StateDraining {
			draining++
		}
	}
	if len(addrs) == 0 && draining > 0 {
		return nil, fail("draining", "\""+o.program()+" node drain NODE --cancel\" lets one take clients again", "every node that is up is draining: none takes clients")
	}
	if len(addrs) == 0 {
		return nil, fail("no_cluster", "name one with --addr HOST:PORT or ws://HOST:PORT", "no node with a client address is up")
	}
	return addrs, nil
}

func checkClientAddr(addr string) error {
	host := addr
	if scheme, rest, ok := strings.Cut(addr, "://"); ok {
		switch scheme {
		case "ws", "wss":
			if rest != "" {
				return nil // the port may be left out
			}
		case "tcp", "tls":
		default:
			return usage("\"client\" commands take client addresses: HOST:PORT for TCP, ws://HOST:PORT for WebSocket", "--addr %q: a client address does not begin with %s://", addr, scheme)
		}
		host, _, _ = strings.Cut(rest, "/")
	}
	if _, port, err := net.SplitHostPort(host); err != nil || port == "" {
		return usage("\"client\" commands take client addresses: HOST:PORT for TCP, ws://HOST:PORT for WebSocket", "--addr %q: want HOST:PORT", addr)
	}
	return nil
}

// ownToken has the cluster sign a token. A cluster that needs none, or whose keys are somebody else's, is no error here:
// the login will tell.
func (o *loginOptions) ownToken(ctx context.Context, cfg *client.Config, api target, id wire.ClientID) error {
	mint := func(ctx context.Context) (string, error) {
		c, err := api.dial(o.app)
		if err != nil {
			return "", err
		}
		defer c.Close()
		t, err := c.ClientToken(ctx, id, clientTokenTTL)
		return t.Token, err
	}
	first, cancel := o.bounded(ctx)
	defer cancel()
	token, err := mint(first)
	switch {
	case err == nil:
	case admin.IsConflict(err):
		return nil // development mode, or keys of their own
	default:
		err := o.adminError(api, err)
		if f := asFailure(err, ""); f.code == string(admin.StatusUnauthorized) {
			f.hint += "\na client's own login token goes to --client-token"
			return f
		}
		return err
	}
	unused := make(chan string, 1) // the one that is there, then a new one for each login
	unused <- token
	cfg.TokenSource = func(ctx context.Context) (string, error) {
		select {
		case t := <-unused:
			return t, nil
		default:
			return mint(ctx)
		}
	}
	return nil
}

// dial logs in, within --timeout. Its errors are for the person who typed the command; after Ctrl-C it is errInterrupted.
func (o *loginOptions) dial(ctx context.Context, cfg client.Config) (*client.Client, error) {
	login, cancel := o.bounded(ctx)
	defer cancel()
	login, giveUp := context.WithCancelCause(login)
	defer giveUp(nil)
	o.refused.expect(cfg.Addrs, giveUp)
	var tasks sync.WaitGroup
	tasks.Go(func() { o.askAfterSilence(login, cfg) })
	c, err := client.Dial(login, cfg)
	giveUp(nil)
	tasks.Wait()
	switch {
	case err == nil:
		return c, nil
	case interrupted(ctx):
		return nil, errInterrupted
	}
	var f *failure
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &f) { // it was ended here, say because the output cannot be written
		return nil, f
	}
	return nil, o.loginError(ctx, cfg, err)
}

// unlessInterrupted is for commands that Ctrl-C is meant to end.
func unlessInterrupted(err error) error {
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

// goodbye closes a client whose work ended with err.
func goodbye(ctx context.Context, c *client.Client, err error) error {
	closing, cancelClose := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancelClose()
	if closeErr := c.Close(closing); err == nil && closeErr != nil {
		err = fail("close", "", "could not say goodbye: %w", closeErr)
	}
	return err
}

// ended explains why a session is over that the SDK could not or would not carry on.
func (o *loginOptions) ended(err error) error {
	w, ok := asWire(err)
	if !ok {
		return err
	}
	f := codeError(w.Code, w.Text, "")
	if w.Code == wire.Replaced {
		f.hint = replacedHint(o.as, w.Text)
	}
	return f
}

// replacedHint says who ended a session for good; text is the node's.
func replacedHint(as, text string) string {
	if _, other, ok := strings.Cut(text, "another device of its class logged in: "); ok {
		user, device, _ := strings.Cut(as, "/")
		class, _, _ := strings.Cut(device, ":")
		return "this cluster allows each user one session for each class of device (--one-per-class): " + other + " came after " + as +
			", and both are " + user + "/" + class
	}
	return "somebody else logged in as " + as + ": an id has one session, the last one (other devices of a user are " + as + "/DEVICE)"
}

// anonymous is a client id that nobody else has.
func anonymous() string { return fmt.Sprintf("imctl-%08x", uint32(wire.NewID())) }

func (o *loginOptions) staleHint(cfg client.Config) string {
	if c, ok, err := o.currentContext(); err == nil && ok && len(o.addrs) == 0 && len(c.Client) > 0 && slices.Contains(c.Client, cfg.Addrs[0]) {
		return "is the cluster " + c.Name + " still running? what is remembered stands in " + o.contextPath() + "\n\"" +
			o.program() + " context clear\" forgets it, --addr names another one"
	}
	return "is the node running? name others with --addr"
}
