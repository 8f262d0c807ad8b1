package node

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
)

// With AdminTLS.NodeCert the admin API shows a certificate of its own. The node's names it by its id, which ordinary HTTP clients
// cannot check; this one, signed by the same CA for the same key, names the addresses under which the API is reached. It is kept
// in memory only: each start asks for another one.

// adminNames are the host names and addresses that the admin API is reached under.
func (n *Node) adminNames() (names []string) {
	add := func(name string) {
		if _, err := netip.ParseAddr(name); (err == nil || mesh.IsHostName(name)) && !slices.Contains(names, name) && len(names) < mesh.MaxServerNames {
			names = append(names, name)
		}
	}
	host := n.cfg.Admin.Bind
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	everywhere := host == "" || err == nil && ip.IsUnspecified()
	switch {
	case everywhere:
	case err == nil:
		add(ip.WithZone("").String())
	default:
		add(host)
	}
	if a := n.cfg.Admin.Advertise; a != "" {
		if h, _, err := net.SplitHostPort(a); err == nil {
			a = h
		}
		add(a)
	}
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	if everywhere || loopback {
		for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
			add(name)
		}
	}
	if name, err := os.Hostname(); err == nil && !loopback {
		add(name)
	}
	return names
}

// usesAdminCert says whether this node needs such a certificate.
func (n *Node) usesAdminCert() bool { return n.cfg.AdminTLS.NodeCert && n.cfg.AdminTLS.CertFile == "" }

// adminCertDue says whether it is time for a new one.
func (n *Node) adminCertDue(now time.Time) bool {
	c := n.adminCert.Load()
	if c == nil {
		return true
	}
	return now.After(c.Leaf.NotAfter.Add(-c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) / 3))
}

// renewAdminCert gets a new one, from here or from a voter.
func (n *Node) renewAdminCert(ctx context.Context) error {
	id, names := n.identity.Load(), n.adminNames()
	key, ok := id.Cert.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the node's key cannot sign")
	}
	certPEM, err := n.signServer(ctx, key.Public(), names)
	if err != nil {
		return err
	}
	leaf, err := id.ParseServer(certPEM, names)
	if err != nil {
		return err // of a voter that knows no such certificates, say
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	cert.Certificate = append(cert.Certificate, id.Cert.Certificate[1:]...) // the CA's
	n.adminCert.Store(cert)
	n.log.Info("admin API certificate made", "names", names, "expires", leaf.NotAfter)
	return nil
}

func (n *Node) signServer(ctx context.Context, pub crypto.PublicKey, names []string) ([]byte, error) {
	if ca := n.ca.Load(); ca != nil {
		return ca.IssueServer(names, pub, n.cfg.CertValidity)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	reply, err := n.askVoters(ctx, secretsRequest{SignNode: n.id, SignKey: der, SignNames: names})
	if err != nil {
		return nil, fmt.Errorf("no voter signed a certificate: %w", err)
	}
	return reply.Cert, nil
}

// shownAdminCert is what the admin API shows: until there is one with names, or if that could not be renewed, the node's own. Who
// asks while the node is just starting waits for the first one.
func (n *Node) shownAdminCert(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	select {
	case <-n.adminCertReady:
	case <-n.ctx.Done():
	case <-h.Context().Done():
	}
	if c := n.adminCert.Load(); c != nil && time.Now().Before(c.Leaf.NotAfter) {
		return c, nil
	}
	return &n.identity.Load().Cert, nil
}

// How long the first handshakes wait for a certificate, and how often it is tried meanwhile and later.
const (
	adminCertWait  = 3 * time.Second
	adminCertPause = 50 * time.Millisecond
	adminCertAgain = 10 * time.Second
)

// runAdminCert gets the first certificate, soon after a voter can be asked, and renews it, until ctx ends.
func (n *Node) runAdminCert(ctx context.Context) {
	err := n.firstAdminCert(ctx)
	close(n.adminCertReady)
	if err != nil && ctx.Err() == nil {
		n.log.Warn("the admin API shows the node's own certificate, which names no address, until a voter signs one that does: imctl takes it, other clients do not", "err", err)
	}
	for {
		wait := adminCertAgain
		if c := n.adminCert.Load(); c != nil { // three tries at least before it ends, however short it is
			wait = min(wait, max(time.Second, time.Until(c.Leaf.NotAfter)/3))
		}
		if !sleep(ctx, wait) {
			return
		}
		if !n.adminCertDue(time.Now()) {
			continue
		}
		if err := n.renewAdminCert(ctx); err != nil {
			n.log.Warn("making the certificate of the admin API failed, it is tried again", "err", err)
		}
	}
}

// firstAdminCert tries for a while: who just joined does not know the voters yet.
func (n *Node) firstAdminCert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminCertWait)
	defer cancel()
	err := n.renewAdminCert(ctx)
	for err != nil && sleep(ctx, adminCertPause) {
		if again := n.renewAdminCert(ctx); again == nil || ctx.Err() == nil {
			err = again
		}
	}
	return err
}

// signsFor issues what another member asks for.
func (n *Node) signsFor(ca *mesh.CA, q *secretsRequest, pub crypto.PublicKey) ([]byte, error) {
	if len(q.SignNames) == 0 {
		return ca.IssueNode(q.SignNode, pub, n.cfg.CertValidity)
	}
	cert, err := ca.IssueServer(q.SignNames, pub, n.cfg.CertValidity)
	if err != nil {
		return nil, wire.Errorf(wire.BadRequest, "%v", err)
	}
	return cert, nil
}
