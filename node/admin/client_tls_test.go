package admin

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestClientSaysWhatIsWrongWithACertificate: neither a wrong authority nor a wrong name looks like a node that stopped, however
// the certificate is checked.
func TestClientSaysWhatIsWrongWithACertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.StartTLS()
	defer srv.Close()
	right := x509.NewCertPool()
	right.AddCert(srv.Certificate())
	for name, tt := range map[string]struct {
		conf *tls.Config
		want string
	}{
		"wrong authority": {&tls.Config{RootCAs: x509.NewCertPool()}, "is not signed by the certificate authority"},
		"a cluster's": {&tls.Config{InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: x509.NewCertPool()})
			return err
		}}, "is not signed by the certificate authority"},
		"wrong name": {&tls.Config{RootCAs: right, ServerName: "other.example.net"}, "is for another name"},
	} {
		c, err := NewClient(ClientConfig{Addrs: []string{srv.Listener.Addr().String()}, TLS: tt.conf})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Healthy(t.Context())
		if !IsUnreachable(err) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "stop") {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}
