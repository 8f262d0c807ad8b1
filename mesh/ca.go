package mesh

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"imroute/mesh/wire"
)

const (
	caValidity = 20 * 365 * 24 * time.Hour
	// backdate lets a certificate be used at once by a node whose wall clock is behind the issuer's.
	backdate = time.Hour
	scheme   = "imroute"
)

// CA issues the node certificates of one cluster. It is immutable and may be used from several goroutines.
type CA struct {
	cluster uint64
	cert    *x509.Certificate
	key     crypto.Signer
}

// NewCA makes a CA with a new key, valid for twenty years, for the cluster of that id (not zero).
func NewCA(clusterID uint64) (*CA, error) {
	if clusterID == 0 {
		return nil, errors.New("cluster CA: the cluster id must not be zero")
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("imroute cluster %016x CA", clusterID)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: scheme, Host: fmt.Sprintf("%016x", clusterID)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	return &CA{clusterID, cert, key}, nil
}

// LoadCA reads what CertPEM and KeyPEM wrote and checks that they belong together.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	cert := certs[0]
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	if !cert.IsCA {
		return nil, errors.New("cluster CA: the certificate is not a CA's")
	}
	if !samePublic(key.Public(), cert.PublicKey) {
		return nil, errors.New("cluster CA: the key does not belong to the certificate")
	}
	for _, u := range cert.URIs {
		if id, err := parseID(u.Host); err == nil && u.Scheme == scheme && u.Path == "" {
			return &CA{id, cert, key}, nil
		}
	}
	return nil, errors.New("cluster CA: the certificate names no cluster (URI imroute://<sixteen hex digits>)")
}

// Cluster is the id of the cluster this CA speaks for.
func (ca *CA) Cluster() uint64 { return ca.cluster }

// IssueNode makes the certificate of a node for its public key, valid from an hour ago for the given time, as PEM.
func (ca *CA) IssueNode(node wire.NodeID, pub crypto.PublicKey, validity time.Duration) ([]byte, error) {
	now := time.Now()
	return ca.issue(node, pub, now.Add(-backdate), now.Add(validity))
}

func (ca *CA) issue(node wire.NodeID, pub crypto.PublicKey, from, until time.Time) ([]byte, error) {
	if node == 0 {
		return nil, errors.New("node certificate: the node id must not be zero")
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "imroute node " + node.String()},
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{nodeURI(ca.cluster, node)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("node certificate for %v: %w", node, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// CertPEM is the CA's certificate, which every member holds.
func (ca *CA) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// KeyPEM is the CA's private key (PKCS #8). Whoever has it can make members: store it with mode 0600.
func (ca *CA) KeyPEM() ([]byte, error) { return KeyPEM(ca.key) }

// Hash is the SHA-256 of the certificate (DER); join tokens carry it.
func (ca *CA) Hash() [32]byte { return sha256.Sum256(ca.cert.Raw) }

// NewKey makes a private key (Ed25519) for a node or a CA.
func NewKey() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	return key, nil
}

// KeyPEM encodes a private key as PKCS #8.
func KeyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a PKCS #8 private key as KeyPEM writes it; RSA, ECDSA and Ed25519 keys of others are taken too.
func ParseKey(keyPEM []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block \"PRIVATE KEY\" (PKCS #8) found")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T cannot sign", k)
	}
	return s, nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b[:])
}

func samePublic(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}
