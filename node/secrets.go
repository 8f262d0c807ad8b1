package node

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/node/gateway"
)

// secrets is what every member of a cluster knows and nobody else: made by the founder, handed to joiners, kept 0600 in
// the data folder.
type secrets struct {
	AdminToken string `json:"admin_token"` // operators' bearer token
	// ClientKeys is a key file (gateway.ParseKeys) with the cluster's own key for login tokens, for those who have no issuer
	// of their own.
	ClientKeys string `json:"client_keys"`
	Dev        bool   `json:"dev,omitempty"` // the cluster is in development mode
}

func newSecrets() *secrets {
	_, key, _ := ed25519.GenerateKey(nil) // crypto/rand never fails
	file, _ := json.Marshal([]map[string]string{{
		"kid": "cluster-" + rand.Text()[:8], "alg": gateway.AlgEdDSA, "key": base64.StdEncoding.EncodeToString(key),
	}}) // strings only: cannot fail
	return &secrets{AdminToken: "ima1-" + rand.Text(), ClientKeys: string(file)}
}

// handOut is what a joiner gets; takeIn reads it.
func (s *secrets) handOut() []byte {
	b, _ := json.Marshal(s) // strings only: cannot fail
	return b
}

func takeIn(b []byte) (*secrets, error) {
	s := &secrets{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("cluster secrets: %w", err)
	}
	return s, nil
}

func loadSecrets(d *datadir.Dir) (*secrets, error) {
	token, err := d.Secret(datadir.AdminTok)
	if err != nil {
		return nil, err
	}
	keys, err := d.Secret(datadir.ClientKey)
	if err != nil {
		return nil, err
	}
	return &secrets{AdminToken: strings.TrimSpace(string(token)), ClientKeys: string(keys), Dev: d.HasSecret(datadir.DevMode)}, nil
}

func (s *secrets) store(d *datadir.Dir) error {
	if err := d.SetSecret(datadir.AdminTok, []byte(s.AdminToken+"\n")); err != nil {
		return err
	}
	if s.Dev {
		if err := d.SetSecret(datadir.DevMode, []byte("this cluster is in development mode\n")); err != nil {
			return err
		}
	}
	return d.SetSecret(datadir.ClientKey, []byte(s.ClientKeys))
}

// clientAuth checks login tokens with the operator's keys or, without any, with the cluster's own.
func (n *Node) clientAuth() (*gateway.Auth, error) {
	file := []byte(n.secrets.ClientKeys)
	if n.cfg.ClientKeys != "" {
		var err error
		if file, err = os.ReadFile(n.cfg.ClientKeys); err != nil {
			return nil, fmt.Errorf("client-keys: %w", err)
		}
	}
	keys, err := gateway.ParseKeys(file)
	if err != nil {
		return nil, fmt.Errorf("client-keys: %w", err)
	}
	return gateway.NewAuth(keys, n.issued())
}

// issued is what login tokens must say of their issuer and audience, those that the cluster signs too.
func (n *Node) issued() gateway.Issued {
	return gateway.Issued{Issuer: n.cfg.ClientIssuer, Audience: n.cfg.ClientAudience}
}

// secretsRequest asks a holder of the CA key: to sign a certificate for a member (SignKey, SignNode), or to hand out the
// key itself to a voter that lacks it (CAKey).
type secretsRequest struct {
	SignNode wire.NodeID `cbor:"1,keyasint,omitempty"`
	SignKey  []byte      `cbor:"2,keyasint,omitempty"` // PKIX
	CAKey    bool        `cbor:"3,keyasint,omitempty"`

	// SignNames asks for a server certificate with these names instead, see admincert.go.
	SignNames []string `cbor:"4,keyasint,omitempty"`
}

type secretsReply struct {
	Cert  []byte `cbor:"1,keyasint,omitempty"` // PEM
	CAKey []byte `cbor:"2,keyasint,omitempty"` // PEM
}

func (n *Node) handleSecrets(_ context.Context, from wire.NodeID, q *secretsRequest) (*secretsReply, error) {
	ca := n.ca.Load()
	if ca == nil {
		return nil, wire.Errorf(wire.NotReady, "this node does not hold the CA key")
	}
	if q.CAKey {
		if !n.isVoter(from) {
			return nil, wire.Errorf(wire.Refused, "only voters hold the CA key")
		}
		key, err := ca.KeyPEM()
		if err != nil {
			return nil, err
		}
		return &secretsReply{CAKey: key}, nil
	}
	if _, member := n.fsm.Node(q.SignNode); !member {
		return nil, wire.Errorf(wire.NotMember, "node %s is not a member", q.SignNode)
	}
	pub, err := x509.ParsePKIXPublicKey(q.SignKey)
	if err != nil {
		return nil, wire.Errorf(wire.BadRequest, "public key: %v", err)
	}
	cert, err := n.signsFor(ca, q, pub)
	if err != nil {
		return nil, err
	}
	return &secretsReply{Cert: cert}, nil
}

// sign gets a certificate for a member, from here or from a voter.
func (n *Node) sign(ctx context.Context, node wire.NodeID, pub crypto.PublicKey) ([]byte, error) {
	if ca := n.ca.Load(); ca != nil {
		return ca.IssueNode(node, pub, n.cfg.CertValidity)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	reply, err := n.askVoters(ctx, secretsRequest{SignNode: node, SignKey: der})
	if err != nil {
		return nil, fmt.Errorf("no voter signed a certificate: %w", err)
	}
	return reply.Cert, nil
}

// askVoters asks the voters one after the other until one answers.
func (n *Node) askVoters(ctx context.Context, q secretsRequest) (*secretsReply, error) {
	config, _, err := n.store.Members()
	if err != nil {
		return nil, err
	}
	last := error(wire.Errorf(wire.Unavailable, "there is no other voter"))
	for _, m := range config {
		if !m.Voter || m.ID == n.id {
			continue
		}
		reply := &secretsReply{}
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := n.ask(try, m.ID, wire.CallSecrets, q, reply)
		cancel()
		if err == nil {
			return reply, nil
		}
		last = err
	}
	return nil, last
}

// runRenewal renews the node's certificate before it expires and fetches the CA key once the node is a voter, until ctx
// ends.
func (n *Node) runRenewal(ctx context.Context) error {
	for wait := time.Second; sleep(ctx, wait); {
		wait = time.Minute
		if n.ca.Load() == nil && n.isVoter(n.id) {
			if err := n.fetchCAKey(ctx); err != nil {
				n.log.Warn("fetching the CA key failed, it is tried again", "err", err)
				wait = 5 * time.Second
			}
		}
		if n.ca.Load() == nil && !n.isVoter(n.id) {
			wait = time.Second // it may become a voter any moment
		}
		// Three tries at least before a certificate ends, however short it is.
		wait = min(wait, max(time.Second, time.Until(n.identity.Load().NotAfter())/3))
		if n.identity.Load().NeedsRenewal(time.Now()) {
			if err := n.renewCertificate(ctx); err != nil {
				n.log.Warn("renewing the certificate failed, it is tried again", "err", err, "expires", n.identity.Load().NotAfter())
			}
		}
	}
	return nil
}

func (n *Node) fetchCAKey(ctx context.Context) error {
	reply, err := n.askVoters(ctx, secretsRequest{CAKey: true})
	if err != nil {
		return err
	}
	ca, err := mesh.LoadCA(n.identity.Load().CAPEM, reply.CAKey)
	if err != nil {
		return err
	}
	if err := n.dir.SetSecret(datadir.CAKey, reply.CAKey); err != nil {
		return n.fail(fmt.Errorf("keeping the CA key: %w", err))
	}
	n.ca.Store(ca)
	return nil
}

func (n *Node) renewCertificate(ctx context.Context) error {
	old := n.identity.Load()
	key, ok := old.Cert.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the node's key cannot sign")
	}
	cert, err := n.sign(ctx, n.id, key.Public())
	if err != nil {
		return err
	}
	keyPEM, err := mesh.KeyPEM(key)
	if err != nil {
		return err
	}
	id, err := mesh.LoadIdentity(cert, keyPEM, old.CAPEM)
	if err != nil {
		return err
	}
	if err := n.dir.SetSecret(datadir.NodeCert, cert); err != nil {
		return n.fail(fmt.Errorf("keeping the renewed certificate: %w", err))
	}
	if err := n.mesh.UpdateIdentity(id); err != nil {
		return err
	}
	n.identity.Store(id)
	n.log.Info("certificate renewed", "expires", id.NotAfter())
	return nil
}
