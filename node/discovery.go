package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/datadir"
	"imroute/node/discover"
	"imroute/raftfsm"
)

// Values of Discover.Mode.
const (
	DiscoverLAN = "lan" // by multicast on the local network
	DiscoverOff = "off"
)

// Discover says how a node finds its cluster without addresses, see package discover. It holds until the node is a member;
// from then on the data folder remembers name and secret, and the node announces itself so that others find it.
type Discover struct {
	Mode       string        // DiscoverLAN, DiscoverOff, or empty: as the data folder remembers, else off
	Cluster    string        // the cluster's name; required with DiscoverLAN unless the data folder remembers it
	Secret     string        // what all its nodes share, at least discover.MinSecret characters; likewise
	Expect     int           // found a cluster only when so many nodes are there; 0: whoever is there after Wait
	Wait       time.Duration // how long to listen before founding; default 3 s
	Interfaces []string      // by name; default: all
	Port       int           // UDP; default discover.DefaultPort

	// Listen opens the network, for tests; default discover.ListenLAN.
	Listen func(discover.LANConfig) (discover.Conn, error)
}

func (d *Discover) validate() error {
	switch {
	case d.Mode != "" && d.Mode != DiscoverLAN && d.Mode != DiscoverOff:
		return fmt.Errorf("discover is %q: want %s or %s", d.Mode, DiscoverLAN, DiscoverOff)
	case d.Expect < 0 || d.Expect > 1000:
		return fmt.Errorf("bootstrap-expect is %d: want 0 to 1000", d.Expect)
	case d.Port < 0 || d.Port > 65535:
		return fmt.Errorf("discover-port is %d: want 1 to 65535", d.Port)
	}
	orDefault(&d.Wait, discover.DefaultWait)
	if d.Wait < 100*time.Millisecond || d.Wait > 10*time.Minute {
		return fmt.Errorf("discover-wait is %v: want 100ms to 10m", d.Wait)
	}
	if d.Listen == nil {
		d.Listen = func(c discover.LANConfig) (discover.Conn, error) { return discover.ListenLAN(c) }
	}
	if d.Mode != DiscoverLAN {
		return nil
	}
	if d.Cluster != "" {
		if err := discover.CheckCluster(d.Cluster); err != nil {
			return err
		}
	}
	if d.Secret != "" {
		return discover.CheckSecret(d.Secret)
	}
	return nil
}

// discovery is what a node that discovers others holds; its key is nil if it does not.
type discovery struct {
	key   *discover.Key
	agent *discover.Agent // nil: not on the air
}

// keyGiven derives the key of what the operator said; nil if he said nothing.
func (n *Node) keyGiven() (*discover.Key, error) {
	d := &n.cfg.Discover
	if d.Cluster == "" && d.Secret == "" {
		return nil, nil
	}
	if d.Cluster == "" || d.Secret == "" {
		return nil, errors.New("--cluster and --secret belong together: give both")
	}
	return discover.NewKey(d.Cluster, d.Secret)
}

// listenLAN puts an agent on the air.
func (n *Node) listenLAN() error {
	host, _, err := net.SplitHostPort(advertised(n.cfg.Mesh, n.cfg.Mesh.Bind))
	if err != nil {
		return err
	}
	ip := net.ParseIP(host)
	conn, err := n.cfg.Discover.Listen(discover.LANConfig{
		Interfaces: n.cfg.Discover.Interfaces, Port: n.cfg.Discover.Port, Loopback: host == "localhost" || ip != nil && ip.IsLoopback(),
	})
	if err != nil {
		return err
	}
	name := n.name
	if name == "" {
		name = n.cfg.Name
	}
	n.discovery.agent, err = discover.Open(discover.Config{
		Key: n.discovery.key, Node: n.id, Name: name, Dev: n.cfg.Dev, Expect: n.cfg.Discover.Expect, Wait: n.cfg.Discover.Wait,
		Conn: conn, Logger: n.log.With("part", "discovery"),
	})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// joinPause is between two attempts to join those who were found.
const joinPause = 500 * time.Millisecond

// discoverCluster finds the cluster and joins it, or founds it, however long that takes: until ctx ends.
func (n *Node) discoverCluster(ctx context.Context) error {
	var err error
	if n.discovery.key, err = n.keyGiven(); err != nil {
		return err
	}
	if n.discovery.key == nil {
		return errors.New("--discover lan needs --cluster NAME and --secret SECRET, the same on every node of the cluster")
	}
	if n.cfg.Name == "" {
		n.cfg.Name = defaultName(n.id)
	}
	if err := n.listenLAN(); err != nil {
		return err
	}
	// Before the certificate, which makes the folder a member's.
	if err := n.dir.SetSecret(datadir.Discovery, n.discovery.key.Marshal()); err != nil {
		return err
	}
	n.log.Info("looking for the cluster on the LAN", "cluster", n.cfg.Discover.Cluster, "name", n.cfg.Name, "wait", n.cfg.Discover.Wait, "expect", n.cfg.Discover.Expect)
	for {
		outcome, err := n.discovery.agent.Seek(ctx)
		if err != nil {
			return err
		}
		if outcome.Found {
			n.log.Info("no cluster was found; founding it", "cluster", n.cfg.Discover.Cluster)
			return n.found()
		}
		err = n.joinFound(ctx, outcome.Members)
		if err == nil || isFinal(err) {
			return err
		}
		n.log.Warn("the cluster was found but could not be joined yet; trying again", "err", err)
		if !sleep(ctx, joinPause) {
			return context.Cause(ctx)
		}
	}
}

// joinFound joins one of the members that were found, which are of one cluster.
func (n *Node) joinFound(ctx context.Context, members []discover.Peer) error {
	id, secret := n.discovery.key.Token()
	token := mesh.Token{ID: id, Secret: secret, CAHash: members[0].CAHash}
	var addrs []string
	for _, m := range members {
		if m.CAHash != token.CAHash {
			continue // not proven to be of this time, or this would be two clusters
		}
		if n.cfg.Dev != m.Dev {
			return &wire.Error{Code: wire.Refused, Text: fmt.Sprintf("the cluster %q on this LAN (node %s) is %s development mode: start this node %s --dev, or take another --cluster name",
				n.cfg.Discover.Cluster, m.Name, inOrNot(m.Dev), withOrWithout(m.Dev))}
		}
		addrs = append(addrs, m.Mesh)
	}
	err := n.joinAt(ctx, addrs, token)
	if errors.Is(err, mesh.ErrWrongCluster) {
		// Somebody else took over the address of a member that is gone; its announcements end soon.
		return fmt.Errorf("%w: %s", mesh.ErrUnreachable, err)
	}
	return err
}

func inOrNot(dev bool) string {
	if dev {
		return "in"
	}
	return "not in"
}

func withOrWithout(dev bool) string {
	if dev {
		return "with"
	}
	return "without"
}

// isFinal tells whether joining again has no chance: the cluster refused.
func isFinal(err error) bool {
	refused, ok := errors.AsType[*wire.Error](err)
	// A member that signs may not have applied yet what another one let in.
	return errors.Is(err, mesh.ErrWrongCluster) || errors.Is(err, errBadJoin) || ok && refused.Code.Class() == wire.Final && refused.Code != wire.NotMember
}

// errBadJoin marks errors of this start's own words.
var errBadJoin = errors.New("cannot join")

// joinStatic joins at the --join addresses, which are looked up anew each time, until JoinWait is over.
func (n *Node) joinStatic(ctx context.Context, token mesh.Token) error {
	give := time.Now().Add(n.cfg.JoinWait)
	for pause := joinPause; ; pause = min(2*pause, 4*time.Second) {
		addrs, err := discover.Expand(ctx, net.DefaultResolver, n.cfg.Join)
		if len(addrs) > 0 {
			if lookup := err; lookup != nil {
				n.log.Warn("some of the --join names cannot be looked up", "err", lookup)
			}
			err = n.joinAt(ctx, addrs, token)
		}
		if err == nil || isFinal(err) || ctx.Err() != nil || time.Until(give) < pause {
			return err
		}
		n.log.Warn("cannot join yet; trying again", "err", err, "for", time.Until(give).Round(time.Second))
		if !sleep(ctx, pause) {
			return err
		}
	}
}

// rememberDiscovery makes a member go on announcing itself as the data folder remembers, or as it is told now.
func (n *Node) rememberDiscovery() error {
	if n.cfg.Discover.Mode == DiscoverOff {
		return nil
	}
	given, err := n.keyGiven()
	if err != nil {
		return err
	}
	if n.dir.HasSecret(datadir.Discovery) {
		b, err := n.dir.Secret(datadir.Discovery)
		if err != nil {
			return err
		}
		if n.discovery.key, err = discover.ParseKey(b); err != nil {
			return fmt.Errorf("%s: %w; give --cluster and --secret to have it made anew", n.dir.SecretPath(datadir.Discovery), err)
		}
	}
	if given != nil && n.cfg.Discover.Mode == DiscoverLAN && !given.Equal(n.discovery.key) {
		if n.discovery.key != nil {
			n.log.Warn("--cluster or --secret is not what this node announced itself with so far; the new one holds from now on, give it to every node", "cluster", given.Cluster(), "before", n.discovery.key.Cluster())
		}
		n.discovery.key = given
		return n.dir.SetSecret(datadir.Discovery, given.Marshal())
	}
	if n.discovery.key == nil && n.cfg.Discover.Mode == DiscoverLAN {
		return errors.New("--discover lan needs --cluster NAME and --secret SECRET: this node was not found by discovery before")
	}
	return nil
}

// announceMember tells the LAN that this node can be joined. A member that cannot is one all the same.
func (n *Node) announceMember() error {
	if n.discovery.key == nil {
		return nil
	}
	if n.discovery.agent == nil {
		if err := n.listenLAN(); err != nil {
			n.log.Warn("this node cannot announce itself, so others do not find it; --discover off ends this warning", "err", err)
			return nil
		}
	}
	id := n.identity.Load()
	hash, err := mesh.CAHash(id.CAPEM)
	if err != nil {
		return err
	}
	n.discovery.agent.Become(id.Cluster, hash, advertised(n.cfg.Mesh, n.mesh.Addr().String()))
	return nil
}

// close ends the announcements.
func (d *discovery) close() error {
	if d.agent == nil {
		return nil
	}
	return d.agent.Close()
}

// foreign are members of other clusters under the same name and secret.
func (d *discovery) foreign() []discover.Peer {
	if d.agent == nil {
		return nil
	}
	return d.agent.Foreign()
}

// members are those of this cluster that announce themselves.
func (d *discovery) members() []discover.Peer {
	if d.agent == nil {
		return nil
	}
	return d.agent.Members()
}

func (d *discovery) rejected() map[string]float64 {
	out := map[string]float64{}
	if d.agent != nil {
		for reason, count := range d.agent.Rejected() {
			out[reason] = float64(count)
		}
	}
	return out
}

// foreignClusters counts the other clusters.
func (d *discovery) foreignClusters() float64 {
	ids := map[uint64]bool{}
	for _, p := range d.foreign() {
		ids[p.Cluster] = true
	}
	return float64(len(ids))
}

// defaultName is a name for a node that was given none: the machine's, and enough of its id to tell it from others there.
func defaultName(id wire.NodeID) string {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	host, _, _ = strings.Cut(host, ".")
	name := fmt.Sprintf("%.200s-%04x", host, uint64(id)&0xffff)
	if raftfsm.CheckName(name) != nil {
		name = fmt.Sprintf("node-%04x", uint64(id)&0xffff)
	}
	return name
}
