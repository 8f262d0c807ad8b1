package mesh

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// Identity is who a node is: its certificate with key, and whom it trusts. It must not be changed after LoadIdentity made
// it; a renewed certificate is a new Identity.
type Identity struct {
	Node    wire.NodeID
	Cluster uint64
	Cert    tls.Certificate // leaf first, then the CA, so that a joiner can compare it with its token
	Roots   *x509.CertPool
	CAPEM   []byte
}

// LoadIdentity checks that certificate, key and CA (all PEM) fit together and reads who the certificate is for. An expired
// certificate is loaded all the same, see Expired: what to do about it is the caller's business.
func LoadIdentity(certPEM, keyPEM, caPEM []byte) (*Identity, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	cas, err := parseCerts(caPEM)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	leaf := certs[0]
	if !samePublic(key.Public(), leaf.PublicKey) {
		return nil, fmt.Errorf("node key: does not belong to the node's certificate: %w", ErrIdentity)
	}
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	cluster, node, err := verifyNode(certs, roots, leaf.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	id := &Identity{Node: node, Cluster: cluster, Roots: roots, CAPEM: caPEM}
	id.Cert = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range certs {
		id.Cert.Certificate = append(id.Cert.Certificate, c.Raw)
	}
	for _, ca := range cas {
		if leaf.CheckSignatureFrom(ca) == nil {
			id.Cert.Certificate = append(id.Cert.Certificate, ca.Raw)
			break
		}
	}
	return id, nil
}

// CertPEM is the node's certificate, without the CA's.
func (id *Identity) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Leaf.Raw})
}

// NotAfter is when the certificate ends.
func (id *Identity) NotAfter() time.Time { return id.Cert.Leaf.NotAfter }

// Expired says whether other nodes refuse the certificate at that time.
func (id *Identity) Expired(now time.Time) bool { return now.After(id.Cert.Leaf.NotAfter) }

// NeedsRenewal says whether two thirds of the certificate's life are over.
func (id *Identity) NeedsRenewal(now time.Time) bool {
	leaf := id.Cert.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return now.After(leaf.NotAfter.Add(-life / 3))
}

// verifyNode checks a peer's chain against the roots at a time and returns the node that it names. Every error is an
// ErrIdentity and says what is wrong in words an operator can act on.
func verifyNode(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (cluster uint64, node wire.NodeID, err error) {
	if len(chain) == 0 {
		return 0, 0, fmt.Errorf("no certificate was shown: %w", ErrIdentity)
	}
	leaf := chain[0]
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	cluster, node, err = namedNode(leaf)
	if err != nil {
		return 0, 0, err
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: inter,
		CurrentTime:   now,
		// A node uses one certificate for both directions, so both usages are asked for below.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if now.Before(leaf.NotBefore) {
			return 0, 0, fmt.Errorf("the certificate of node %v is valid only from %s on; compare the clocks of both machines: %w",
				node, leaf.NotBefore.UTC().Format(time.RFC3339), ErrIdentity)
		}
		return 0, 0, fmt.Errorf("the certificate of node %v expired at %s; join that node again with a new token: %w",
			node, leaf.NotAfter.UTC().Format(time.RFC3339), ErrIdentity)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the certificate of node %v (cluster %016x) was not issued by this cluster's CA: %w (%w)",
			node, cluster, ErrIdentity, err)
	}
	for _, want := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if !hasUsage(leaf, want) {
			return 0, 0, fmt.Errorf("the certificate of node %v must be for both server and client authentication: %w", node, ErrIdentity)
		}
	}
	return cluster, node, nil
}

func hasUsage(c *x509.Certificate, want x509.ExtKeyUsage) bool {
	for _, u := range c.ExtKeyUsage {
		if u == want || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// verifyPeer is verifyNode for a peer of this identity: same cluster, now.
func (id *Identity) verifyPeer(chain []*x509.Certificate) (wire.NodeID, error) {
	cluster, node, err := verifyNode(chain, id.Roots, time.Now())
	if err != nil {
		return 0, err
	}
	if cluster != id.Cluster {
		return 0, fmt.Errorf("the certificate of node %v is for cluster %016x, this is cluster %016x: %w", node, cluster, id.Cluster, ErrIdentity)
	}
	return node, nil
}

func nodeURI(cluster uint64, node wire.NodeID) *url.URL {
	return &url.URL{Scheme: scheme, Host: fmt.Sprintf("%016x", cluster), Path: "/node/" + node.String()}
}

// namedNode reads imroute://<cluster>/node/<node> from a certificate; there must be exactly one.
func namedNode(c *x509.Certificate) (cluster uint64, node wire.NodeID, err error) {
	found := 0
	for _, u := range c.URIs {
		hex, ok := strings.CutPrefix(u.Path, "/node/")
		if u.Scheme != scheme || !ok {
			continue
		}
		cl, err1 := parseID(u.Host)
		n, err2 := wire.ParseNodeID(hex)
		if err1 != nil || err2 != nil {
			return 0, 0, fmt.Errorf("malformed node name %q in a certificate: %w", u, ErrIdentity)
		}
		cluster, node = cl, n
		found++
	}
	if found != 1 {
		return 0, 0, fmt.Errorf("the certificate of %q names %d nodes, want one (URI imroute://<cluster>/node/<node>): %w",
			c.Subject.CommonName, found, ErrIdentity)
	}
	return cluster, node, nil
}

func parseID(hex string) (uint64, error) {
	v, err := strconv.ParseUint(hex, 16, 64)
	if err != nil || len(hex) != 16 || v == 0 {
		return 0, fmt.Errorf("%q: want sixteen hex digits", hex)
	}
	return v, nil
}

func parseCerts(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for len(b) > 0 {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM block \"CERTIFICATE\" found")
	}
	return certs, nil
}

// findCA returns the CA certificate with that hash among those shown.
func findCA(chain []*x509.Certificate, hash [32]byte) *x509.Certificate {
	for _, c := range chain {
		if c.IsCA && sha256.Sum256(c.Raw) == hash {
			return c
		}
	}
	return nil
}
