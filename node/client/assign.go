package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

const (
	assignTimeout   = 3 * time.Second // for one node's answer
	maxAssignAnswer = 16 << 10        // bytes
)

// assigned asks the cluster where to log in and puts that first in cfg.Addrs. Nodes that do not know or do not answer are passed
// over: an error only if nothing is left to log in at.
func assigned(ctx context.Context, cfg *Config) error {
	if len(cfg.AssignFrom) == 0 {
		return nil
	}
	transport, secure := "tcp", false
	for i, s := range cfg.Addrs {
		a, err := parseAddress(s)
		if err != nil {
			return nil // newAddressBook says so, with its place
		}
		if i == 0 && a.webSocket() {
			transport = "ws"
		}
		secure = secure || a.secure()
	}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: cfg.DialContext, DisableKeepAlives: true, TLSClientConfig: cloneTLS(cfg.TLS)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	var errs []error
	for _, from := range cfg.AssignFrom {
		base, _ := parseAssignFrom(from) // checked by validate
		a, err := askAssign(ctx, client, base, cfg, transport)
		if err == nil && (secure || base.Scheme == "https") && !a.secure() {
			err = fmt.Errorf("it names %s, which is not encrypted", a)
		}
		if err == nil {
			cfg.Logger.Debug("assigned", "by", from, "addr", a.String())
			cfg.Addrs = slices.Insert(slices.Clone(cfg.Addrs), 0, a.String())
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", from, err))
		if ctx.Err() != nil {
			break
		}
	}
	err := errors.Join(errs...)
	if len(cfg.Addrs) == 0 {
		return fmt.Errorf("nobody says where to log in: %w", err)
	}
	cfg.Logger.Info("nobody says where to log in; trying the configured addresses", "err", err)
	return nil
}

func cloneTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.NextProtos = nil
	return c
}

func askAssign(ctx context.Context, client *http.Client, base *url.URL, cfg *Config, transport string) (address, error) {
	ctx, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	q := url.Values{"client": {cfg.Client}, "transport": {transport}}
	if cfg.Tenant != "" {
		q.Set("tenant", cfg.Tenant)
	}
	at := *base
	at.Path, at.RawQuery = "/v1/assign", q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return address{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return address{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAssignAnswer))
	if err != nil {
		return address{}, err
	}
	return parseAssigned(resp.StatusCode, raw)
}

// parseAssigned reads a node's answer.
func parseAssigned(status int, raw []byte) (address, error) {
	var said struct {
		URL   string `json:"url"`
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	err := json.Unmarshal(raw, &said)
	switch {
	case status == http.StatusOK && err == nil && said.URL != "":
		return parseAddress(said.URL)
	case err == nil && said.Error.Message != "":
		return address{}, errors.New(said.Error.Message)
	}
	return address{}, fmt.Errorf("it answered %d %s: is this the WebSocket port of a node?", status, http.StatusText(status))
}

// parseAssignFrom reads http://host:port or https://host:port.
func parseAssignFrom(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("%q: want http://host:port or https://host:port, a node's WebSocket port", s)
	}
	if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" {
		return nil, fmt.Errorf("%q: want http://host:port or https://host:port, a node's WebSocket port", s)
	}
	return u, nil
}
