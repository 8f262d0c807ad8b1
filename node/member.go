package node

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/raftfsm"
)

// becomeMember makes this data folder a member's: it founds a cluster, joins one, or remembers what it is.
func (n *Node) becomeMember(ctx context.Context) error {
	var err error
	switch {
	case n.dir.HasSecret(datadir.NodeCert):
		if err = n.remember(); err == nil {
			err = n.rememberDiscovery()
		}
	case n.cfg.Bootstrap || len(n.cfg.Join) > 0:
		// What cannot listen must not leave a founded folder or a member that never comes.
		if err = n.tryBinds(); err == nil && n.cfg.Bootstrap {
			err = n.found()
		} else if err == nil {
			err = n.join(ctx)
		}
	case n.cfg.Discover.Mode == DiscoverLAN:
		if err = n.tryBinds(); err == nil {
			err = n.discoverCluster(ctx)
		}
	default:
		return fmt.Errorf("data folder %s is new: say whether this node founds a cluster (--bootstrap), enters one (--join HOST:PORT --token TOKEN), or looks for one (--discover lan --cluster NAME --secret SECRET)", n.cfg.Data)
	}
	if err != nil {
		return err
	}
	n.peers = newPeerBook(n)
	return n.peers.load()
}

// tryBinds finds out whether this node can listen where it is told to.
func (n *Node) tryBinds() error {
	listenPacket := n.cfg.Host.listenPacket()
	if listenPacket == nil {
		listenPacket = func(bind string) (net.PacketConn, error) { return net.ListenPacket("udp", bind) }
	}
	udp, err := listenPacket(n.cfg.Mesh.Bind)
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	defer udp.Close()
	for _, b := range []struct{ name, addr string }{
		{"client listener (TCP)", n.cfg.ClientTCP.Bind}, {"client listener (WebSocket)", n.cfg.ClientWS.Bind}, {"admin API", n.cfg.Admin.Bind},
	} {
		l, err := n.cfg.Host.listen()(n.ctx, "tcp", b.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		defer l.Close()
	}
	return nil
}

// remember loads what an earlier start left. --bootstrap and --join are harmless then, so that a service can be started
// with the same words every time.
func (n *Node) remember() error {
	var files [3][]byte
	for i, which := range []datadir.Secret{datadir.NodeCert, datadir.NodeKey, datadir.CACert} {
		b, err := n.dir.Secret(which)
		if errors.Is(err, datadir.ErrMissing) {
			return lostFile(err)
		} else if err != nil {
			return err
		}
		files[i] = b
	}
	id, err := mesh.LoadIdentity(files[0], files[1], files[2])
	if err != nil {
		return fmt.Errorf("identity in %s: %w", n.cfg.Data, err)
	}
	if id.Node != n.id {
		return fmt.Errorf("identity in %s is node %s's, but the folder is node %s's: was a file copied from another node?", n.cfg.Data, id.Node, n.id)
	}
	n.identity.Store(id)
	if err := n.checkToken(); err != nil {
		return err
	}
	members, err := n.dir.Members()
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.ID == n.id {
			n.name = m.Name
		}
	}
	if n.name == "" && n.dir.LostMembers() { // that is no removal: who this node is stands in its certificate
		if n.cfg.Name == "" || len(n.cfg.Join) == 0 {
			return fmt.Errorf("data folder %s: the list of members is missing (members.json): start the node with --name, as it was called, and --join with the address of any member", n.cfg.Data)
		}
		n.name = n.cfg.Name
	}
	if n.name == "" { // peerBook.removed took it off the list
		return fmt.Errorf("data folder %s: %w", n.cfg.Data, errRemoved)
	}
	if n.cfg.Name != "" && n.cfg.Name != n.name {
		return fmt.Errorf("name %s is given, but the data folder %s belongs to node %s: leave --name out, or use another folder", n.cfg.Name, n.cfg.Data, n.name)
	}
	if n.dir.HasSecret(datadir.CAKey) {
		key, err := n.dir.Secret(datadir.CAKey)
		if err != nil {
			return err
		}
		ca, err := mesh.LoadCA(files[2], key)
		if err != nil {
			return fmt.Errorf("CA key in %s: %w", n.cfg.Data, err)
		}
		n.ca.Store(ca)
	}
	if n.secrets, err = loadSecrets(n.dir); errors.Is(err, datadir.ErrMissing) {
		return lostFile(err)
	} else if err != nil {
		return err
	}
	return n.settleMode(n.secrets.Dev)
}

// lostFile is what becomes of a member of whose folder a file is missing.
func lostFile(err error) error {
	return fmt.Errorf("the data folder is incomplete: %w; restore the file from a copy, or remove this node from the cluster, empty the folder and join again as a new member", err)
}

// checkToken refuses a token of another cluster: whoever gives one for a folder that is a member already, with the same
// words at every start, means this cluster.
func (n *Node) checkToken() error {
	if n.cfg.Token == "" {
		return nil
	}
	token, err := mesh.ParseToken(n.cfg.Token)
	if err != nil {
		return fmt.Errorf("--token: %w", err)
	}
	ours, err := mesh.CAHash(n.identity.Load().CAPEM)
	if err != nil {
		return err
	}
	if token.CAHash != ours {
		return fmt.Errorf("--token is for another cluster than the one that the data folder %s belongs to: use another folder to join that one", n.cfg.Data)
	}
	return nil
}

// settleMode holds the cluster's mode, development or not, against what this start says. It is the cluster's: with one node
// in development mode anybody who reaches it could log in as anyone.
func (n *Node) settleMode(dev bool) error {
	if n.cfg.Dev && !dev {
		return fmt.Errorf("--dev, but the cluster of data folder %s is not in development mode: leave --dev out", n.cfg.Data)
	}
	n.cfg.Dev = dev
	return nil
}

// found makes a new cluster of one.
func (n *Node) found() error {
	if n.cfg.Name == "" {
		return errors.New("a name is missing: give --name NAME")
	}
	ca, err := mesh.NewCA(wire.NewID())
	if err != nil {
		return err
	}
	key, err := mesh.NewKey()
	if err != nil {
		return err
	}
	cert, err := ca.IssueNode(n.id, key.Public(), n.cfg.CertValidity)
	if err != nil {
		return err
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	n.secrets = newSecrets()
	n.secrets.Dev = n.cfg.Dev
	return n.enter(cert, key, ca.CertPEM(), caKey, nil)
}

// join asks a member for a certificate. Nothing is kept of an attempt that failed, so it can be repeated.
func (n *Node) join(ctx context.Context) error {
	if n.cfg.Name == "" {
		return errors.New("a name is missing: give --name NAME")
	}
	if n.cfg.Token == "" {
		return errors.New("--join needs --token: make one on a member with `imctl cluster token create`")
	}
	token, err := mesh.ParseToken(n.cfg.Token)
	if err != nil {
		return fmt.Errorf("--token: %w", err)
	}
	return n.joinStatic(ctx, token)
}

// joinAt asks the members at addrs, once each.
func (n *Node) joinAt(ctx context.Context, addrs []string, token mesh.Token) error {
	key, err := mesh.NewKey()
	if err != nil {
		return err
	}
	reply, err := mesh.Join(ctx, mesh.JoinConfig{
		Addrs: addrs, Token: token, Node: n.id, Name: n.cfg.Name, Version: Version, NonVoter: n.cfg.NonVoter, Features: n.cfg.FeatureLevel, Key: key,
		Advertise: wire.Addrs{Mesh: advertised(n.cfg.Mesh, n.cfg.Mesh.Bind)}, Listen: n.cfg.Host.listenPacket(),
	})
	if err != nil {
		return err
	}
	if n.secrets, err = takeIn(reply.Secrets); err != nil {
		return err
	}
	if err := n.settleMode(n.secrets.Dev); err != nil {
		return fmt.Errorf("%w: %w", errBadJoin, err)
	}
	var members []datadir.Member
	for _, m := range reply.Members {
		members = append(members, datadir.Member{ID: m.ID, Name: m.Name, Mesh: m.Mesh})
	}
	return n.enter(reply.CertPEM, key, reply.CAPEM, nil, members)
}

// enter writes down what this node is from now on. The certificate comes last: a folder without one is still new.
func (n *Node) enter(cert []byte, key crypto.Signer, caCert, caKey []byte, members []datadir.Member) error {
	keyPEM, err := mesh.KeyPEM(key)
	if err != nil {
		return err
	}
	id, err := mesh.LoadIdentity(cert, keyPEM, caCert)
	if err != nil {
		return err
	}
	n.identity.Store(id)
	n.name = n.cfg.Name
	if caKey != nil {
		ca, err := mesh.LoadCA(caCert, caKey)
		if err != nil {
			return err
		}
		n.ca.Store(ca)
	}
	if err := n.secrets.store(n.dir); err != nil {
		return err
	}
	if err := n.dir.SetMembers(append(members, datadir.Member{ID: n.id, Name: n.name})); err != nil {
		return err
	}
	for _, f := range []struct {
		which datadir.Secret
		b     []byte
	}{{datadir.CACert, caCert}, {datadir.CAKey, caKey}, {datadir.NodeKey, keyPEM}, {datadir.NodeCert, cert}} {
		if f.b == nil {
			continue
		}
		if err := n.dir.SetSecret(f.which, f.b); err != nil {
			return err
		}
	}
	return nil
}

// bootstrapRaft makes a founder the only voter. A founder is known by holding the CA key without knowing any other member,
// so a start that was interrupted goes on where it stopped, and nobody else ever founds anything.
func (n *Node) bootstrapRaft() error {
	has, err := n.store.HasState()
	if err != nil || has {
		return err
	}
	members, err := n.dir.Members()
	if err != nil {
		return err
	}
	if n.ca.Load() == nil || len(members) > 1 {
		return nil // a joiner: the leader brings everything
	}
	return n.store.Bootstrap()
}

// handleJoin decides about a joiner whose token says that it may enter.
func (n *Node) handleJoin(ctx context.Context, q *mesh.JoinRequest, remote net.Addr) (*mesh.JoinReply, error) {
	if n.fsm.ClusterID() == 0 {
		return nil, wire.Errorf(wire.NotReady, "this node is not up yet: try again")
	}
	// The token may have been made a moment ago at another node.
	if err := n.refresh(ctx); err != nil {
		return nil, wire.Errorf(wire.Unavailable, "the cluster has no quorum at the moment: %v", err)
	}
	if err := n.checkJoinToken(q.TokenID, q.Secret); err != nil {
		return nil, err
	}
	if agreed, knows := n.fsm.FeatureLevel(), max(q.Features, raftfsm.BaseFeatureLevel); knows < agreed {
		return nil, wire.Errorf(wire.Refused, "this program (version %s) knows feature level %d, and the cluster has agreed on %d: install the version that the other nodes run (%s)", q.Version, knows, agreed, Version)
	}
	if err := raftfsm.CheckName(q.Name); err != nil {
		return nil, wire.Errorf(wire.Refused, "%v", err)
	}
	cmd := &raftfsm.Command{Kind: raftfsm.KindNodeJoin, Node: q.Node, Name: q.Name, Addrs: q.Addrs, Version: q.Version}
	if q.NonVoter {
		cmd.Role = raftfsm.RoleNonVoter
	}
	r, err := n.leaderCall.propose(ctx, cmd)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, err
	}
	if err := n.fsm.WaitApplied(ctx, r.Index); err != nil {
		return nil, err
	}
	cert, err := n.sign(ctx, q.Node, q.PublicKey)
	if err != nil {
		return nil, err
	}
	reply := &mesh.JoinReply{Code: wire.OK, Cluster: n.fsm.ClusterID(), CertPEM: cert, CAPEM: n.identity.Load().CAPEM, Secrets: n.secrets.handOut()}
	for _, m := range n.fsm.Nodes() {
		if m.ID != q.Node {
			reply.Members = append(reply.Members, mesh.Member{ID: m.ID, Name: m.Name, Mesh: m.Addrs.Mesh})
		}
	}
	n.log.Info("audit", "event", "join", "node", q.Name, "joiner", q.Node, "token", q.TokenID, "from", remote.String())
	return reply, nil
}

// checkJoinToken lets in whoever has a token of the cluster's table or, if this node announces itself on a LAN, the one that
// follows from the shared secret.
func (n *Node) checkJoinToken(id string, secret []byte) error {
	if n.discovery.key.Admits(id, secret) {
		return nil
	}
	hash, expiresUnix, ok := n.fsm.Token(id)
	expires := time.Unix(expiresUnix, 0)
	if !ok || !mesh.CheckToken(id, secret, hash) {
		return wire.Errorf(wire.Refused, "the cluster does not know this token (any more): make a new one with `imctl cluster token create`")
	}
	if time.Now().After(expires) {
		return wire.Errorf(wire.Refused, "the token expired at %s: make a new one with `imctl cluster token create`", expires.Format(time.RFC3339))
	}
	return nil
}

// wasMember tells a node that was removed from one whose joining has not reached the table here.
func (n *Node) wasMember() bool { return n.fsm.Removed(n.id) }
