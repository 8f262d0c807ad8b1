package cli

import (
	"context"
	"log/slog"
	"path/filepath"

	"imroute/mesh/wire"
	"imroute/node"
)

// server is a running node as "node start" sees it.
type server interface {
	Open(ctx context.Context) error
	Wait() error
	Close(ctx context.Context) error
	Ready() <-chan struct{}
	Addrs() wire.Addrs
	Bound() wire.Addrs  // valid after Open: where it listens
	ClusterID() string  // valid after Open
	Name() string       // valid after Open
	AdminToken() string // valid after Open; "" in development mode
	Dev() bool          // valid after Open: the cluster's mode, whatever the flag said
}

// serverStarter makes a server; it starts nothing.
type serverStarter func(s nodeSettings, log *slog.Logger) (server, error)

// defaultBinds is where a node listens if nobody says.
var defaultBinds = func() wire.Addrs {
	d := node.DefaultConfig()
	return wire.Addrs{Mesh: d.Mesh.Bind, ClientTCP: d.ClientTCP.Bind, ClientWS: d.ClientWS.Bind, Admin: d.Admin.Bind}
}()

// Files of a data folder, see package node/datadir.
var (
	clusterCAFile = filepath.Join("identity", "ca.crt")   // the cluster's CA certificate
	memberFile    = filepath.Join("identity", "node.crt") // written last when a node becomes a member
)

func buildVersion() string { return node.Version }

// startNode makes a node of the settings; what is zero is left to package node.
func startNode(s nodeSettings, log *slog.Logger) (server, error) {
	n, err := node.New(s.nodeConfig(), log)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (s nodeSettings) nodeConfig() node.Config {
	// What others dial: the address of that listener, else the host for all of them, else what it is bound to.
	bind := func(listen, advertise string) node.Bind {
		if advertise == "" {
			advertise = s.advertise
		}
		return node.Bind{Bind: listen, Advertise: advertise}
	}
	c := node.Config{
		Name: s.name, Data: s.data, Bootstrap: s.bootstrap, Join: s.join, JoinWait: s.joinWait, Token: s.joinToken, NonVoter: s.nonVoter, Dev: s.dev,
		Discover: node.Discover{
			Mode: s.discover, Cluster: s.cluster, Secret: s.secret, Expect: s.bootstrapExpect, Wait: s.discoverWait,
			Interfaces: s.discoverInterface, Port: s.discoverPort,
		},
		Mesh: bind(s.mesh, s.advertiseMesh), ClientTCP: bind(s.clientTCP, s.advertiseClientTCP),
		ClientWS: bind(s.clientWS, s.advertiseClientWS), Admin: bind(s.admin, s.advertiseAdmin),
		Timings: node.Timings{
			Heartbeat: s.heartbeat, Election: s.election, Lease: s.lease, Margin: s.margin, Renew: s.renew, Quiet: s.quiet,
		},
		AdminTLS:   node.AdminTLS{CertFile: s.adminCert, KeyFile: s.adminKey, NodeCert: s.adminNodeCert},
		ClientKeys: s.clientKeys, ClientIssuer: s.clientIssuer, ClientAudience: s.clientAudience,
		Duplicate: s.duplicate, OnePerClass: s.onePerClass, Voters: s.voters,
		Idle: s.idle, MaxPayload: s.maxPayload, MaxSessions: s.maxSessions, LoginRate: s.loginRate, AnyOrigin: s.anyOrigin, Lanes: s.lanes,
		TakeoverBurst: s.takeoverBurst, TakeoverEvery: s.takeoverEvery, CheckEvery: s.checkEvery, DiskTimeout: s.diskTimeout,
		Webhook:      node.Webhook{URL: s.webhook, Secret: s.webhookSecret, Events: s.webhookEvents, LoginURL: s.loginWebhook, FriendsURL: s.friendsWebhook, FriendsTTL: s.friendsTTL},
		AssignPolicy: s.assignPolicy,
		Limits:       s.limits,
		Journal:      s.journal,
	}
	c.ClientTLS.CertFile, c.ClientTLS.KeyFile = s.clientCert, s.clientKey
	return c
}
