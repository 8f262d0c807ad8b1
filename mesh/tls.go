package mesh

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

// Receive windows. A lane or a Raft snapshot must fill a fast link; all streams of a connection together must not fill the
// memory. Strangers get the initial window of a connection at most, as nothing of theirs is read.
const (
	streamWindow    = 512 << 10
	maxStreamWindow = 6 << 20
	connWindow      = 1 << 20
	maxConnWindow   = 48 << 20
	maxStreams      = 1024
)

func quicConfig(c *Config) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           c.DialTimeout,
		MaxIdleTimeout:                 c.IdleTimeout,
		KeepAlivePeriod:                c.KeepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     maxConnWindow,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          -1,
	}
}

// serverTLS asks members for a certificate and joiners for none. Here the handshake proves only that the dialler has the
// key of the certificate it shows, if any: whether and for whom it is good is looked at right behind it, before anything
// of the connection is read, as a refusal can tell its reason there (a TLS alert cannot).
func serverTLS(identity func() *Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpnRaft, alpnData, alpnJoin},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			conf := &tls.Config{
				MinVersion:             tls.VersionTLS13,
				Certificates:           []tls.Certificate{identity().Cert},
				SessionTicketsDisabled: true, // every handshake shows certificates
			}
			if slices.Contains(h.SupportedProtos, alpnJoin) {
				conf.NextProtos = []string{alpnJoin}
				return conf, nil
			}
			conf.NextProtos = []string{alpnRaft, alpnData}
			conf.ClientAuth = tls.RequestClientCert
			return conf, nil
		},
	}
}

// clientTLS shows our certificate and accepts the server only if it is want (0: any node of this cluster). The pointer is
// set to the node that answered and to the reason of a refusal, which the dial's own error need not keep.
func clientTLS(id *Identity, alpn string, want wire.NodeID) (*tls.Config, *verdict) {
	v := &verdict{}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpn},
		ServerName:         "imroute",
		InsecureSkipVerify: true, // host names mean nothing here: VerifyConnection checks the chain and the node id
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &id.Cert, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			v.node, v.err = id.verifyPeer(cs.PeerCertificates)
			if v.err == nil && want != 0 && v.node != want {
				v.elsewhere = true
				v.err = fmt.Errorf("node %v answers where node %v was expected: %w", v.node, want, ErrIdentity)
			}
			return v.err
		},
	}, v
}

// verdict is written during the handshake and read after the dial returned.
type verdict struct {
	node      wire.NodeID
	elsewhere bool // node is of this cluster, but not the one expected there
	err       error
}

// jitter spreads a duration over [d/2, d).
func jitter(d time.Duration, r func() float64) time.Duration {
	return d/2 + time.Duration(r()*float64(d/2))
}
