package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"imroute/mesh/wire"
	"imroute/node/gateway"
)

func (n *Node) openGateway(ctx context.Context) (err error) {
	cfg := gateway.Config{
		TCP: n.cfg.ClientTCP.Bind, WS: n.cfg.ClientWS.Bind, DevMode: n.cfg.Dev, Idle: n.cfg.Idle, MaxPayload: n.cfg.MaxPayload,
		Listen:      n.cfg.Host.ownListen(),
		MaxSessions: n.cfg.MaxSessions, LoginRate: n.cfg.LoginRate, AnyOrigin: n.cfg.AnyOrigin,
		// A login that has to wait for a lease to run out must not time out before.
		LoginTimeout: 2*n.cfg.Timings.Lease + n.cfg.Timings.Quiet,
		Limits:       n.limiting(),
		Backend:      clients{n}, Journal: n.journal.gateway(), Logger: n.log.With("part", "gateway"),
	}
	if !n.cfg.Dev {
		if cfg.Auth, err = n.clientAuth(); err != nil {
			return err
		}
	}
	if c := n.cfg.ClientTLS; c.CertFile != "" || c.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return fmt.Errorf("client TLS certificate: %w", err)
		}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	cfg.Mux = n.clientMux(cfg.TLS != nil)
	if n.gateway, err = gateway.New(cfg); err != nil {
		return err
	}
	n.admission.gateway = n.gateway
	n.gateway.SetAccepting(false, wire.NoQuorum) // until the first lease
	if err := n.gateway.Open(ctx); err != nil {
		return fmt.Errorf("client listeners: %w", err)
	}
	return nil
}

// advertised completes what the operator gave with what was bound: an address as it is, a host with the bound port,
// nothing as the bound address.
func advertised(b Bind, bound string) string {
	if b.Advertise == "" {
		return bound
	}
	if _, _, err := net.SplitHostPort(b.Advertise); err == nil {
		return b.Advertise
	}
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		return b.Advertise
	}
	return net.JoinHostPort(b.Advertise, port)
}
