package mesh

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// MaxServerNames is how many names and addresses one server certificate may have.
const MaxServerNames = 32

// IssueServer makes a certificate for a server that ordinary clients reach under names: host names and IP addresses. It is valid
// from an hour ago for the given time, as PEM. It names no node, so no member takes it for another one's identity.
func (ca *CA) IssueServer(names []string, pub crypto.PublicKey, validity time.Duration) ([]byte, error) {
	if len(names) == 0 || len(names) > MaxServerNames {
		return nil, fmt.Errorf("server certificate: %d names: want 1 to %d", len(names), MaxServerNames)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "imroute admin API"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip.Unmap().WithZone("").AsSlice())
			continue
		}
		if !IsHostName(name) {
			return nil, fmt.Errorf("server certificate: %q is neither a host name nor an address", name)
		}
		tmpl.DNSNames = append(tmpl.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// IsHostName says whether a name can stand in a certificate: letters, digits, hyphens and dots, no wildcard.
func IsHostName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

// ParseServer reads what IssueServer made and checks that this identity's CA signed it, for the identity's key and for these
// names.
func (id *Identity) ParseServer(certPEM []byte, names []string) (*x509.Certificate, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	cert := certs[0]
	key, ok := id.Cert.PrivateKey.(crypto.Signer)
	if !ok || !samePublic(key.Public(), cert.PublicKey) {
		return nil, errors.New("server certificate: it is for another key")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: id.Roots}); err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	for _, name := range names {
		if err := cert.VerifyHostname(name); err != nil {
			return nil, fmt.Errorf("server certificate: %w", err)
		}
	}
	return cert, nil
}
