package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// ClientConfig configures a Client.
type ClientConfig struct {
	// Addrs are admin addresses of nodes of one cluster, tried in order: "host:port", "http://host:port" or
	// "https://host:port". At least one. Any node answers any question.
	Addrs []string
	// Token is the bearer token. Empty: none is sent (development mode).
	Token string
	// TLS makes addresses without a scheme https, and is used for every https address. Nil: plain http for addresses
	// without a scheme, the system's certificates for https ones. It is cloned.
	TLS *tls.Config
	// DialContext connects to an address; network is "tcp". Nil: a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialTimeout bounds connecting to one address. 0: 3 s.
	DialTimeout time.Duration
	// Timeout bounds a call whose context has no deadline; the watch has none. 0: 30 s.
	Timeout time.Duration
}

// Client asks a cluster's admin API. It may be used by several goroutines at once; Close lets go of idle connections.
//
// Addresses are tried in order, beginning with the last one that answered. The next one is tried when nothing answers, or
// when the answer is unavailable, which says that nothing was changed. A question is also put to the next one when its
// share of the time is over. A change whose outcome is not known is repeated only if the connection broke, never because
// of the time, and those that must not happen twice (CreateToken, Kick) not even then. Errors are *Error.
type Client struct {
	cfg   ClientConfig
	bases []string // scheme://host:port
	http  *http.Client
	first lastGood
}

// NewClient checks the configuration; it connects to nothing.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 3 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	c := &Client{cfg: cfg}
	for _, a := range cfg.Addrs {
		base, err := baseURL(a, cfg.TLS != nil)
		if err != nil {
			return nil, err
		}
		c.bases = append(c.bases, base)
	}
	if len(c.bases) == 0 {
		return nil, Errorf(StatusBadRequest, "no admin address is known").
			WithHint("start a cluster with imctl dev, or name a node's admin address with --addr")
	}
	dial := cfg.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
			defer cancel()
			return dial(ctx, network, addr)
		},
		TLSHandshakeTimeout: cfg.DialTimeout,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     60 * time.Second,
	}
	if cfg.TLS != nil {
		tr.TLSClientConfig = cfg.TLS.Clone()
	}
	c.http = &http.Client{
		Transport: tr,
		// A redirect would carry the token to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close closes idle connections. Calls under way are ended by their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func baseURL(addr string, secure bool) (string, error) {
	scheme, host, ok := strings.Cut(strings.TrimRight(strings.TrimSpace(addr), "/"), "://")
	if !ok {
		scheme, host = "http", scheme
		if secure {
			scheme = "https"
		}
	}
	if scheme != "http" && scheme != "https" {
		return "", Errorf(StatusBadRequest, "admin address %q: want host:port, http://host:port or https://host:port", addr)
	}
	if _, port, err := net.SplitHostPort(host); err != nil || port == "" || strings.ContainsAny(host, "/?#@ ") {
		return "", Errorf(StatusBadRequest, "admin address %q: want host:port", addr)
	}
	return scheme + "://" + host, nil
}

// call is one request, as it is tried at each address.
type call struct {
	method, path string
	in           any  // encoded as JSON; nil: no body
	out          any  // decoded from JSON; nil: the body is dropped
	once         bool // a change that must not happen twice
	okStatus     int  // an HTTP status besides 2xx whose body is the answer all the same
}

// effort is how far Client goes to get an answer.
type effort uint8

const (
	question effort = iota // changes nothing: as often as it takes
	change                 // the same again does no harm
	onlyOnce               // not again once it may have arrived
)

func (k *call) effort() effort {
	switch {
	case k.method == http.MethodGet:
		return question
	case k.once:
		return onlyOnce
	}
	return change
}

func (c *Client) do(ctx context.Context, k call) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	var body []byte
	if k.in != nil {
		var err error
		if body, err = json.Marshal(k.in); err != nil {
			return &Error{Code: wire.Internal, Status: StatusInternal, Text: "encode the request: " + err.Error(), Err: err}
		}
	}
	return c.each(ctx, k.effort(), func(ctx context.Context, base string) error {
		resp, err := c.send(ctx, k.method, base, k.path, body)
		var e *Error
		if errors.As(err, &e) && e.Status == StatusTimeout && k.effort() == question {
			e.Hint = "the node may be stopped or cut off: try another one with --addr, or more time with --timeout"
		}
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 && resp.StatusCode != k.okStatus {
			return readError(resp)
		}
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		switch {
		case err != nil:
			return unreachable(base, err)
		case len(raw) > maxAnswer:
			return Errorf(StatusInternal, "the answer of %s is larger than %d MiB", hostOf(base), maxAnswer>>20)
		case resp.StatusCode == k.okStatus && isErrorBody(raw):
			return parseError(resp.StatusCode, raw)
		case k.out == nil:
			return nil
		}
		if err := json.Unmarshal(raw, k.out); err != nil {
			return notOurs(base, err)
		}
		return nil
	})
}

// maxAnswer bounds what is read of an answer: a page of routes stays far below it.
const maxAnswer = 64 << 20

// each runs one attempt at each address until one counts.
func (c *Client) each(ctx context.Context, ef effort, attempt func(context.Context, string) error) error {
	var worst error
	start := c.first.get()
	for i := range c.bases {
		n := (start + i) % len(c.bases)
		err := c.one(ctx, ef, c.bases[n], len(c.bases)-i, attempt)
		if err == nil {
			c.first.set(n)
			return nil
		}
		if worst == nil || (is(worst, StatusUnreachable) && !is(err, StatusUnreachable)) {
			worst = err // an answer says more than silence
		}
		if ctx.Err() != nil || !moveOn(err, ef) {
			break
		}
	}
	if is(worst, StatusUnreachable) && len(c.bases) > 1 && !errors.Is(worst, context.Canceled) {
		return c.noneAnswers(worst)
	}
	var probe *probeError
	if errors.As(worst, &probe) {
		return probe.error
	}
	return worst
}

// one is the attempt at one address while left addresses, this one counted, remain. A node that is stopped takes
// connections and never answers. With others to ask, a question gives it a share of the time; a change, which must not be
// abandoned halfway, is preceded by asking for a sign of life.
func (c *Client) one(ctx context.Context, ef effort, base string, left int, attempt func(context.Context, string) error) error {
	if left == 1 {
		return attempt(ctx, base)
	}
	if ef == question {
		if deadline, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
			defer cancel()
		}
		return attempt(ctx, base)
	}
	probe, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	resp, err := c.send(probe, http.MethodGet, base, "/healthz", nil)
	if err != nil {
		e := asClientError(err)
		if e.Status == StatusTimeout { // here it is known that nothing happened
			e.Code, e.Status = wire.None, StatusUnreachable
			e.Hint = "the node may be stopped or cut off: name another one with --addr"
		}
		return &probeError{e}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
	_ = resp.Body.Close()
	return attempt(ctx, base)
}

// probeError marks a failure before anything was asked.
type probeError struct{ error }

func (e *probeError) Unwrap() error { return e.error }

// moveOn says whether another address may be asked after err.
func moveOn(err error, ef effort) bool {
	var probe *probeError
	switch {
	case errors.As(err, &probe), is(err, StatusUnavailable), neverSent(err):
		return true
	case is(err, StatusUnreachable):
		return ef != onlyOnce
	case is(err, StatusTimeout):
		return ef == question
	}
	return false
}

func (c *Client) send(ctx context.Context, method, base, path string, body []byte) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, r)
	if err != nil {
		return nil, Errorf(StatusBadRequest, "request %s: %v", path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	req.Header.Set("User-Agent", "imroute-admin")
	if deadline, ok := ctx.Deadline(); ok {
		req.Header.Set(timeoutHeader, strconv.FormatInt(time.Until(deadline).Milliseconds(), 10))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(base, err)
	}
	return resp, nil
}

// unreachable says what a person can do about a network failure.
func unreachable(base string, err error) *Error {
	e := &Error{Status: StatusUnreachable, Err: err}
	host := hostOf(base)
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.Canceled):
		e.Text = "given up"
	case errors.As(err, &unknown):
		e.Text = fmt.Sprintf("the certificate of %s is not signed by the certificate authority that is trusted for it", host)
		e.Hint = "give the right one with --ca: for a node's own certificate it is identity/ca.crt in the data folder of any node of that cluster"
	case errors.As(err, &name):
		e.Text = fmt.Sprintf("the certificate of %s is for another name: %v", host, name)
		e.Hint = "name the node with --addr as its certificate does"
	case errors.As(err, &invalid):
		e.Text = fmt.Sprintf("the certificate of %s is not valid: %v", host, invalid)
		e.Hint = "has it expired, or does a clock go wrong? see the node's log"
	case errors.As(err, &cert):
		e.Text = fmt.Sprintf("the certificate of %s is not trusted: %v", host, cert.Err)
		e.Hint = "give the certificate authority that signed it with --ca"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Text = fmt.Sprintf("%s does not speak TLS", host)
		e.Hint = "use http://" + host
	case errors.As(err, &dns):
		e.Text = fmt.Sprintf("the name of %s cannot be resolved: %v", host, dns.Err)
		e.Hint = "check --addr"
	case errors.As(err, &op) && op.Op == "dial":
		e.Text = fmt.Sprintf("no node answers at %s", host)
		e.Hint = "is it running? see imctl dev, or name another node with --addr"
	case errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Status = wire.Timeout, StatusTimeout
		e.Text = fmt.Sprintf("%s did not answer in time", host)
		e.Hint = "the outcome is not known; the node may be stopped or cut off: try another one with --addr, or more time with --timeout"
	case strings.Contains(err.Error(), "malformed HTTP"):
		e.Text = fmt.Sprintf("%s does not speak HTTP", host)
		e.Hint = "is this the admin address of an imroute node? its other ports are for peers and clients"
	default:
		e.Text = fmt.Sprintf("the connection to %s broke: %v", host, rootCause(err))
		e.Hint = "did the node stop? see imctl node list with the --addr of another one"
	}
	return e
}

// neverSent: the request did not reach anybody.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *Client) noneAnswers(err error) error {
	hosts := make([]string, len(c.bases))
	for i, b := range c.bases {
		hosts[i] = hostOf(b)
	}
	return &Error{
		Status: StatusUnreachable, Text: "no node answers at " + strings.Join(hosts, ", "),
		Hint: "are they running? see imctl dev, or name another node with --addr", Err: err,
	}
}
