package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"
)

// TestAdminCert: an HTTP client that has nothing but the CA's file reaches the admin API of every node, also of one that cannot
// sign its own certificate, under each of its names; and still does when the first certificate has expired.
func TestAdminCert(t *testing.T) {
	c := newCluster(t)
	secure := func(cfg *Config) {
		cfg.Dev, cfg.AdminTLS.NodeCert, cfg.CertValidity = false, true, 4*time.Second
		cfg.Admin = Bind{Bind: "127.0.0.1:0", Advertise: "api.example.org:443"}
	}
	n1 := c.found("n1", secure)
	cfg := c.joining("n2", n1)
	secure(&cfg)
	cfg.NonVoter = true
	n2 := c.start(cfg)
	for _, n := range []*Node{n1, n2} {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(n.identity.Load().CAPEM) {
			t.Fatal("no CA")
		}
		get := func(name string) (*x509.Certificate, error) {
			tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}
			resp, err := tr.RoundTrip(must(t, "https://"+n.Bound().Admin+"/healthz"))
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp.TLS.PeerCertificates[0], nil
		}
		var first *x509.Certificate
		for _, name := range []string{"", "localhost", "127.0.0.1", "api.example.org"} { // empty: as the URL says
			var err error
			if first, err = get(name); err != nil {
				t.Fatalf("%s as %q: %v", n.Name(), name, err)
			}
		}
		if _, err := get("example.org"); err == nil {
			t.Errorf("%s under a name that is not its own", n.Name())
		}
		c.until("a new certificate", func() error {
			now, err := get("")
			if err == nil && now.Equal(first) {
				err = io.EOF
			}
			return err
		})
	}
	// It is for a server and names no node: nobody can join the mesh with it.
	if leaf := n2.adminCert.Load().Leaf; len(leaf.URIs) != 0 || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Errorf("%v %v", leaf.URIs, leaf.ExtKeyUsage)
	}
	if onDisk, err := os.ReadFile(cfg.Data + "/identity/ca.crt"); err != nil || !bytes.Equal(onDisk, n2.identity.Load().CAPEM) {
		t.Errorf("identity/ca.crt is not the CA: %v", err)
	}
}

func must(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAdminNames(t *testing.T) {
	machine, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct {
		bind, advertise string
		want            []string
	}{
		{"127.0.0.1:7903", "", []string{"127.0.0.1", "localhost", "::1"}},
		{"[::1]:7903", "", []string{"::1", "localhost", "127.0.0.1"}},
		{"0.0.0.0:7903", "10.0.0.7", []string{"10.0.0.7", "localhost", "127.0.0.1", "::1", machine}},
		{"10.0.0.7:0", "api.example.org:443", []string{"10.0.0.7", "api.example.org", machine}},
		{"node-1.lan:7903", "[fd00::1]:7903", []string{"node-1.lan", "fd00::1", machine}},
	} {
		n := &Node{cfg: Config{Admin: Bind{Bind: tt.bind, Advertise: tt.advertise}}}
		if got := n.adminNames(); !slices.Equal(got, tt.want) {
			t.Errorf("%s, %s: %v, want %v", tt.bind, net.JoinHostPort(tt.advertise, ""), got, tt.want)
		}
	}
}
