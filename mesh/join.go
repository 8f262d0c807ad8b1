package mesh

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

const (
	maxJoinRequest = 16 << 10
	maxJoinReply   = 1 << 20
)

// JoinRequest is what a node without certificate says to a member. The member's certificate was checked against the token
// before it is sent.
type JoinRequest struct {
	TokenID  string      `cbor:"1,keyasint"`
	Secret   []byte      `cbor:"2,keyasint"`
	Node     wire.NodeID `cbor:"3,keyasint"`
	Name     string      `cbor:"4,keyasint,omitempty"`
	Addrs    wire.Addrs  `cbor:"5,keyasint"` // advertised
	Version  string      `cbor:"6,keyasint,omitempty"`
	CSR      []byte      `cbor:"7,keyasint"` // PKCS #10: the public key and the proof that its private key is held
	NonVoter bool        `cbor:"8,keyasint,omitempty"`
	Features uint32      `cbor:"9,keyasint,omitempty"` // the highest feature level that the joiner knows; 0: the first

	// PublicKey is the CSR's; set for Config.Join, after its signature was checked.
	PublicKey crypto.PublicKey `cbor:"-"`
}

// JoinReply answers a JoinRequest: wire.OK with everything below, or why not.
type JoinReply struct {
	Code    wire.Code `cbor:"1,keyasint"`
	Text    string    `cbor:"2,keyasint,omitempty"`
	Cluster uint64    `cbor:"3,keyasint,omitempty"`
	CertPEM []byte    `cbor:"4,keyasint,omitempty"`
	CAPEM   []byte    `cbor:"5,keyasint,omitempty"`
	Members []Member  `cbor:"6,keyasint,omitempty"`
	Secrets []byte    `cbor:"7,keyasint,omitempty"` // what the joiner's role entitles it to; the mesh does not look inside
}

// Member is a node as a joiner is told of it.
type Member struct {
	ID   wire.NodeID `cbor:"1,keyasint"`
	Name string      `cbor:"2,keyasint,omitempty"`
	Mesh string      `cbor:"3,keyasint"`
}

// JoinConfig is what Join needs to know.
type JoinConfig struct {
	Addrs     []string       // mesh addresses of members, tried in order; required
	Token     Token          // required
	Node      wire.NodeID    // the joiner's id; required
	Name      string         // its label
	Advertise wire.Addrs     // where others shall reach it
	Version   string         // of the software
	NonVoter  bool           // never to be promoted
	Features  uint32         // the highest feature level that the joiner knows; zero means the first
	Key       crypto.Signer  // the joiner's private key; it does not leave this machine; required
	Bind      string         // UDP address to dial from; empty: any
	Timeout   time.Duration  // for each address; zero means 10 s
	Listen    PacketListener // opens the socket; nil: a UDP socket of the system
}

func (c *JoinConfig) validate() error {
	switch {
	case len(c.Addrs) == 0:
		return errors.New("join: no address given: name the mesh address of any member")
	case c.Node == 0:
		return errors.New("join: Node is zero")
	case c.Key == nil:
		return errors.New("join: Key is missing")
	case len(c.Token.Secret) == 0:
		return errors.New("join: Token is missing")
	}
	return nil
}

// Join asks the members at the given addresses in turn until one has an answer that another could not better. A reply is
// returned only if it is wire.OK, and its certificate was checked then. Errors: ErrWrongCluster (no secret was sent),
// *wire.Error (refused, with the cluster's words), ErrUnreachable (nobody answered; each address's reason is in the text).
// Asking again after an error is harmless.
func Join(ctx context.Context, cfg JoinConfig) (*JoinReply, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("join: certificate request: %w", err)
	}
	req, err := wire.Marshal(&JoinRequest{
		TokenID: cfg.Token.ID, Secret: cfg.Token.Secret, Node: cfg.Node, Name: cfg.Name, Addrs: cfg.Advertise,
		Version: cfg.Version, CSR: csr, NonVoter: cfg.NonVoter, Features: cfg.Features,
	})
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	s, err := dialSocket(cfg.Listen, cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	defer s.close()
	var failed []error
	for _, addr := range cfg.Addrs {
		reply, err := joinAt(ctx, s, &cfg, addr, req)
		if err == nil {
			return reply, nil
		}
		err = fmt.Errorf("join at %s: %w", addr, err)
		if refused, ok := errors.AsType[*wire.Error](err); errors.Is(err, ErrWrongCluster) || ok && refused.Code.Class() == wire.Final {
			return nil, err
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

func joinAt(ctx context.Context, s *socket, cfg *JoinConfig, addr string, req []byte) (*JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	unreachable := func(err error) error {
		// Whichever of the clocks notices first: ours or QUIC's.
		if timeout, ok := errors.AsType[net.Error](err); ctx.Err() != nil || ok && timeout.Timeout() {
			err = errNoAnswer
		}
		return fmt.Errorf("%w: %w", ErrUnreachable, closedBecause(err))
	}
	to, err := resolve(ctx, addr, nil)
	if err != nil {
		return nil, unreachable(err)
	}
	var wrong error
	tlsConf := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpnJoin},
		ServerName:         scheme,
		InsecureSkipVerify: true, // there is nothing to check a chain against but the token's hash: VerifyConnection
		VerifyConnection: func(cs tls.ConnectionState) error {
			wrong = checkCluster(cs.PeerCertificates, cfg.Token.CAHash)
			return wrong
		},
	}
	conf := &quic.Config{HandshakeIdleTimeout: cfg.Timeout, MaxIdleTimeout: cfg.Timeout, MaxIncomingStreams: -1, MaxIncomingUniStreams: -1}
	dctx, stop := context.WithTimeoutCause(ctx, min(cfg.Timeout, 3*time.Second), errNoAnswer)
	defer stop()
	conn, err := s.Dial(dctx, to, tlsConf, conf)
	if err != nil {
		if wrong != nil {
			return nil, wrong
		}
		return nil, unreachable(err)
	}
	defer func() { _ = conn.CloseWithError(closeBye, "") }()
	reply, err := askJoin(ctx, conn, req)
	if err != nil {
		if refused, ok := errors.AsType[*wire.Error](closedBecause(err)); ok {
			return nil, refused
		}
		return nil, unreachable(err)
	}
	if reply.Code != wire.OK {
		return nil, &wire.Error{Code: reply.Code, Text: reply.Text}
	}
	if err := checkReply(reply, cfg); err != nil {
		return nil, err
	}
	return reply, nil
}

// checkCluster makes sure that a server belongs to the cluster whose CA has the token's hash.
func checkCluster(chain []*x509.Certificate, hash [32]byte) error {
	ca := findCA(chain, hash)
	if ca == nil {
		return fmt.Errorf("%w: that node has another CA; take a token made by the cluster you want to join, or its address", ErrWrongCluster)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, _, err := verifyNode(chain, roots, time.Now()); err != nil {
		return fmt.Errorf("that node cannot prove that it belongs to the token's cluster: %w", err)
	}
	return nil
}

// checkReply makes sure that the certificate is what was asked for before anybody stores it.
func checkReply(reply *JoinReply, cfg *JoinConfig) error {
	key, err := KeyPEM(cfg.Key)
	if err != nil {
		return err
	}
	id, err := LoadIdentity(reply.CertPEM, key, reply.CAPEM)
	if err != nil {
		return fmt.Errorf("the certificate in its answer is of no use: %w", err)
	}
	if id.Node != cfg.Node || id.Cluster != reply.Cluster {
		return fmt.Errorf("the certificate in its answer is for node %v of cluster %016x: %w", id.Node, id.Cluster, ErrIdentity)
	}
	return nil
}

func askJoin(ctx context.Context, conn *quic.Conn, req []byte) (*JoinReply, error) {
	st, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := writeSized(st, req); err != nil {
		return nil, err
	}
	_ = st.Close()
	b, err := readSized(st, maxJoinReply)
	if err != nil {
		return nil, err
	}
	var reply JoinReply
	if err := wire.Unmarshal(b, &reply); err != nil {
		return nil, fmt.Errorf("its answer cannot be read: %w", err)
	}
	return &reply, nil
}

func writeSized(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func readSized(r io.Reader, limit uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return nil, wire.Errorf(wire.TooLarge, "%d bytes: at most %d", n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, noEOF(err)
	}
	return b, nil
}
