package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"

	"imroute/mesh/wire"
	"imroute/node/admin"
)

// target is the cluster a command talks to, and how that is known: errors tell it.
type target struct {
	admin       []string // admin addresses
	token       string
	ca          string // file
	fromContext bool   // the addresses are remembered ones
	context     clusterContext
	remembered  bool // context is set
}

// noCluster is the error of a command that knows no address.
func (a *app) noCluster(what string) error {
	return fail("no_cluster", "start one with \""+a.program()+" dev\", or name a node with --addr (or IMCTL_ADDR)", "no cluster is known: there is no current context, and no %s was given", what)
}

// adminTarget finds the admin API: --addr, else IMCTL_ADDR, else the current context. useFlag is false for commands whose
// --addr means something else.
func (a *app) adminTarget(useFlag bool) (target, error) {
	ctx, ok, err := a.currentContext()
	t := target{context: ctx, remembered: ok}
	explicit := splitAddrs(a.env("IMCTL_ADDR"))
	if useFlag && len(a.addrs) > 0 {
		explicit = splitAddrs(a.addrs...)
	}
	switch {
	case len(explicit) > 0: // a damaged context file is no obstacle
		t.admin = explicit
	case err != nil:
		return t, err
	case ok && len(ctx.Admin) > 0:
		t.admin, t.fromContext = slices.Clone(ctx.Admin), true
	default:
		return t, a.noCluster("admin address")
	}
	// What is remembered of a cluster, its secret above all, is only shown to addresses remembered with it.
	if known := func(s string) bool { return slices.Contains(ctx.Admin, s) }; ok && !slices.ContainsFunc(t.admin, func(s string) bool { return !known(s) }) {
		t.token, t.ca = ctx.Token, ctx.CA
	}
	if v := a.env("IMCTL_TOKEN"); v != "" {
		t.token = v
	}
	if a.tokenFile != "" {
		if t.token, err = readSecret(a.tokenFile); err != nil {
			return t, err
		}
	}
	if a.token != "" {
		t.token = a.token
	}
	if a.ca != "" {
		t.ca = a.ca
	}
	return t, nil
}

func splitAddrs(lists ...string) []string {
	var out []string
	for _, l := range lists {
		for s := range strings.SplitSeq(l, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

// tlsConfig reads the certificate authority in a file; nil if there is none.
func tlsConfig(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	certs, err := os.ReadFile(file)
	if err != nil {
		return nil, fail("ca", "check --ca", "cannot read the certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certs) {
		return nil, fail("ca", "check --ca", "%s holds no PEM certificate", file)
	}
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if isClusterCA(certs) {
		// A cluster's CA signs nothing but its nodes, by their ids: a node may be reached by whatever name or address, and
		// which of the nodes answers does not matter. So the chain is checked, and no host name.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool})
			return err
		}
	}
	return c, nil
}

// isClusterCA tells whether a file holds the CA that a cluster made for itself.
func isClusterCA(b []byte) bool {
	block, _ := pem.Decode(b)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && cert.IsCA && len(cert.URIs) == 1 && cert.URIs[0].Scheme == "imroute"
}

// dial makes a client of the admin API.
func (t target) dial(a *app) (*admin.Client, error) {
	tc, err := tlsConfig(t.ca)
	if err != nil {
		return nil, err
	}
	c, err := admin.NewClient(admin.ClientConfig{Addrs: t.admin, Token: t.token, TLS: tc, Timeout: a.timeout})
	if err != nil {
		return nil, a.adminError(t, err)
	}
	return c, nil
}

// withAdmin runs f with a client of the admin API and --timeout, and explains its errors.
func (a *app) withAdmin(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	return a.followAdmin(ctx, f)
}

// followAdmin is withAdmin without the --timeout, for commands that go on until stopped.
func (a *app) followAdmin(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	t, err := a.adminTarget(true)
	if err != nil {
		return err
	}
	c, err := t.dial(a)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := f(ctx, c); err != nil {
		if interrupted(ctx) {
			return errInterrupted
		}
		return a.adminError(t, err)
	}
	return nil
}

// adminError turns an error of the admin API into what imctl shows and exits with.
func (a *app) adminError(t target, err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var e *admin.Error
	if !errors.As(err, &e) {
		return err
	}
	f = &failure{exit: ExitError, code: string(e.Status), text: e.Text, hint: strings.ReplaceAll(e.Hint, "imctl ", a.program()+" "), cause: err}
	if f.text == "" {
		f.text = e.Code.String()
	}
	switch e.Status {
	case admin.StatusNotFound:
		f.exit = ExitNotFound
	case admin.StatusUnavailable:
		if e.Code == wire.NotMember { // the cluster may be well: it is this node that is out of it
			f.code = e.Code.String()
			break
		}
		f.exit = ExitNoQuorum
		if !strings.HasPrefix(f.text, "unavailable") {
			f.text = "unavailable: " + f.text
		}
	case admin.StatusUnauthorized:
		f.hint = "give the cluster's admin token with --token, --token-file or IMCTL_TOKEN (the node's data folder holds it)"
	case admin.StatusUnreachable:
		if t.fromContext {
			f.text = "the remembered cluster " + t.context.Name + " does not answer: " + f.text
			f.hint = "is it still running? what is remembered stands in " + a.contextPath() + "\n" +
				"\"" + a.program() + " context clear\" forgets it, \"" + a.program() + " dev\" starts a new cluster, --addr names another one"
		}
	}
	return f
}

// codeError turns a result code of the client protocol into a failure.
func codeError(c wire.Code, text, hint string) *failure {
	f := &failure{exit: ExitError, code: c.String(), text: c.String(), hint: hint}
	if text != "" && text != f.text {
		f.text += ": " + text
	}
	switch c {
	case wire.Offline:
		f.exit = ExitNotFound
	case wire.Unavailable, wire.NoQuorum, wire.NotReady:
		f.exit = ExitNoQuorum
	}
	return f
}
