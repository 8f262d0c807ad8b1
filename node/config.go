package node

import (
	"errors"
	"fmt"
	"net"
	"time"

	"imroute/mesh"
	"imroute/node/discover"
	"imroute/raftfsm"
)

// Version names the build; set by the linker for releases.
var Version = "dev"

// Bind is where a listener listens and what others are told to dial.
type Bind struct {
	Bind      string // "host:port"; port 0 takes a free one; empty: the default
	Advertise string // "host:port" or host alone (the bound port is added); empty: the bound address
}

// Timings decide how soon a failure is noticed and how long a lease holds. They must be the same on every node.
type Timings struct {
	Heartbeat time.Duration // Raft's; default 500 ms
	Election  time.Duration // Raft's; default 500 ms
	Lease     time.Duration // L, the length of a node's right to deliver; default 4 s
	Margin    time.Duration // by which holder and leader each err to the safe side; default 250 ms
	Renew     time.Duration // between two renewals; default 500 ms
	Quiet     time.Duration // without a lease for this long, sessions are told to go elsewhere; default 10 s
}

// AdminTLS says how the admin API is encrypted. Beyond loopback one of the two is required.
type AdminTLS struct {
	CertFile, KeyFile string // own certificate
	NodeCert          bool   // one signed by the cluster's CA for the addresses of the admin API
}

// ClientTLS is the certificate for client TCP and WebSocket; empty: not encrypted.
type ClientTLS struct{ CertFile, KeyFile string }

// Config is everything a node is told at its start. Zero values mean what the comments say.
type Config struct {
	Name      string // label, unique among live members; required at the first start, kept in the data folder afterwards
	Data      string // data folder; required
	Bootstrap bool   // found a new cluster; only for an empty data folder
	// Join has mesh addresses of members, "host:port", "dns:NAME" or "dns:NAME:PORT": to join by Token, or where to look for
	// members whose addresses have changed.
	Join     []string
	JoinWait time.Duration // how long joining is tried again while nobody answers; default 30 s
	Token    string        // join token
	Discover Discover      // how to find a cluster without Join
	NonVoter bool          // never promote this node by itself
	Dev      bool          // development mode: no tokens for clients and operators, loopback only

	Mesh      Bind // default 127.0.0.1:7900 (UDP)
	ClientTCP Bind // default 127.0.0.1:7901
	ClientWS  Bind // default 127.0.0.1:7902
	Admin     Bind // default 127.0.0.1:7903

	Timings   Timings
	AdminTLS  AdminTLS
	ClientTLS ClientTLS

	ClientKeys string // file with the keys that check login tokens; empty: the cluster's own key
	// What login tokens must say; empty: anything. Those that the cluster signs by its own key say it. Give them to all nodes.
	ClientIssuer   string // claim iss
	ClientAudience string // in claim aud

	Duplicate string // duplicate login: replace (default) or reject; read when bootstrapping, agreed by Raft from then on
	Voters    uint32 // how many voters are aimed at; read when bootstrapping; default 3
	// OnePerClass gives each user one session for each class of device at most; read when bootstrapping, agreed by Raft from then on.
	OnePerClass bool

	Idle        time.Duration // a client that is silent for this long is gone; default 30 s
	MaxPayload  int           // bytes; default 1 MiB
	MaxSessions int           // default 100,000
	LoginRate   int           // logins a second; default 0: no limit
	// How often one client id may be taken over, at this node, from another SDK instance than the one that logs in: two
	// devices with the same id must not throw each other out for ever.
	TakeoverBurst int           // that many at once; default 5
	TakeoverEvery time.Duration // then one in this time; default 2 s

	Webhook      Webhook
	AssignPolicy string // how assign chooses a node: min-clients (default), round-robin or hash
	Limits       Limits // what clients and tenants may use; default: no limits

	CheckEvery  time.Duration // between two comparisons of this node's sessions with the table, give or take a quarter; default 5 min
	AnyOrigin   bool          // let web pages of any origin connect over WebSocket
	Lanes       int           // ordered streams per peer; default 4
	PendingMax  int64         // bytes of messages that wait for their outcome; default 64 MiB
	DiskTimeout time.Duration // a write to the Raft log that takes longer ends the node: a leader whose disk hangs must not stay leader; default 10 s
	MinFreeDisk uint64        // bytes of free disk below which the node is not ready; default 64 MiB

	// For tests: what this node says it knows, and how long the certificates hold that it signs or makes.
	FeatureLevel uint32        // default raftfsm.MaxFeatureLevel
	CertValidity time.Duration // default 90 days; a certificate is renewed when two thirds are over

	// Host stands in for parts of this machine, so that a whole cluster can be simulated in one process. Nil: the real ones.
	Host *Host

	// Friends says whom a client that watches the list "friends" sees; nil: there are no such lists.
	Friends FriendSource

	Journal string // for tests: file to which every delivery is written down (see journal.go); empty: none
}

// DefaultConfig returns the defaults of everything that has one.
func DefaultConfig() Config {
	return Config{
		Mesh: Bind{Bind: "127.0.0.1:7900"}, ClientTCP: Bind{Bind: "127.0.0.1:7901"}, ClientWS: Bind{Bind: "127.0.0.1:7902"}, Admin: Bind{Bind: "127.0.0.1:7903"},
		Timings:   DefaultTimings(),
		Duplicate: raftfsm.DuplicateReplace.String(), Voters: raftfsm.DefaultVoters,
		Idle: 30 * time.Second, MaxPayload: 1 << 20, MaxSessions: 100_000, Lanes: 4, PendingMax: 64 << 20, MinFreeDisk: 64 << 20,
		DiskTimeout: 10 * time.Second, CheckEvery: 5 * time.Minute, TakeoverBurst: 5, TakeoverEvery: 2 * time.Second,
		FeatureLevel: raftfsm.MaxFeatureLevel, CertValidity: 90 * 24 * time.Hour,
	}
}

// DefaultTimings are those that the figures in ARCHITECTURE.md were taken with.
func DefaultTimings() Timings {
	return Timings{
		Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, Lease: 4 * time.Second, Margin: 250 * time.Millisecond,
		Renew: 500 * time.Millisecond, Quiet: 10 * time.Second,
	}
}

func orDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// validate fills in defaults and names the field at fault and what to do.
func (c *Config) validate() error {
	d := DefaultConfig()
	for _, b := range []struct {
		name string
		b    *Bind
		def  Bind
	}{{"mesh", &c.Mesh, d.Mesh}, {"client-tcp", &c.ClientTCP, d.ClientTCP}, {"client-ws", &c.ClientWS, d.ClientWS}, {"admin", &c.Admin, d.Admin}} {
		orDefault(&b.b.Bind, b.def.Bind)
		host, _, err := net.SplitHostPort(b.b.Bind)
		if err != nil {
			return fmt.Errorf("%s: address %q: want host:port, for example %s", b.name, b.b.Bind, b.def.Bind)
		}
		if ip := net.ParseIP(host); (host == "" || ip != nil && ip.IsUnspecified()) && b.b.Advertise == "" {
			return fmt.Errorf("%s: bound to every address (%s), so others must be told which one to dial: give --advertise-%s HOST", b.name, b.b.Bind, b.name)
		}
	}
	orDefault(&c.JoinWait, 30*time.Second)
	orDefault(&c.Timings.Heartbeat, d.Timings.Heartbeat)
	orDefault(&c.Timings.Election, d.Timings.Election)
	orDefault(&c.Timings.Lease, d.Timings.Lease)
	orDefault(&c.Timings.Margin, d.Timings.Margin)
	orDefault(&c.Timings.Renew, d.Timings.Renew)
	orDefault(&c.Timings.Quiet, d.Timings.Quiet)
	orDefault(&c.Duplicate, d.Duplicate)
	orDefault(&c.Voters, d.Voters)
	orDefault(&c.Idle, d.Idle)
	orDefault(&c.MaxPayload, d.MaxPayload)
	orDefault(&c.MaxSessions, d.MaxSessions)
	orDefault(&c.Lanes, d.Lanes)
	orDefault(&c.PendingMax, d.PendingMax)
	orDefault(&c.DiskTimeout, d.DiskTimeout)
	orDefault(&c.MinFreeDisk, d.MinFreeDisk)
	orDefault(&c.CheckEvery, d.CheckEvery)
	orDefault(&c.TakeoverBurst, d.TakeoverBurst)
	orDefault(&c.TakeoverEvery, d.TakeoverEvery)
	orDefault(&c.FeatureLevel, d.FeatureLevel)
	orDefault(&c.CertValidity, d.CertValidity)
	switch {
	case c.Data == "":
		return errors.New("data folder is missing: give --data DIR")
	case c.Bootstrap && len(c.Join) > 0:
		return errors.New("both --bootstrap and --join given: --bootstrap founds a new cluster, --join enters an existing one")
	case c.Token != "" && len(c.Join) == 0:
		return errors.New("--token without --join: give the mesh address of a member, --join HOST:PORT")
	case c.Discover.Mode == DiscoverLAN && (c.Bootstrap || len(c.Join) > 0):
		return errors.New("--discover finds or founds the cluster by itself: leave --bootstrap and --join out")
	case c.MaxPayload < 1 || c.MaxPayload > 16<<20:
		return fmt.Errorf("max-payload is %d: want 1 to %d bytes", c.MaxPayload, 16<<20)
	case c.Idle < 100*time.Millisecond:
		return fmt.Errorf("idle is %v: want at least 100ms", c.Idle)
	case c.DiskTimeout < 100*time.Millisecond || c.DiskTimeout > time.Hour:
		return fmt.Errorf("disk-timeout is %v: want 100ms to 1h", c.DiskTimeout)
	case c.TakeoverEvery < time.Millisecond || c.TakeoverEvery > time.Hour:
		return fmt.Errorf("takeover-every is %v: want 1ms to 1h", c.TakeoverEvery)
	case c.CheckEvery < time.Second || c.CheckEvery > 24*time.Hour:
		return fmt.Errorf("check-every is %v: want 1s to 24h", c.CheckEvery)
	case c.Lanes < 1 || c.Lanes > mesh.MaxLanes:
		return fmt.Errorf("lanes is %d: want 1 to %d", c.Lanes, mesh.MaxLanes)
	}
	for _, addr := range c.Join {
		if err := discover.CheckJoin(addr); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if err := c.Discover.validate(); err != nil {
		return err
	}
	if c.Name != "" {
		if err := raftfsm.CheckName(c.Name); err != nil {
			return err
		}
	}
	if _, err := raftfsm.ParseDuplicatePolicy(c.Duplicate); err != nil {
		return err
	}
	// What the table would refuse later, when the cluster is founded, is refused before anything is written.
	switch c.Voters {
	case 1, 3, 5, 7:
	default:
		return fmt.Errorf("voters is %d: want 1, 3, 5 or 7", c.Voters)
	}
	for _, f := range []struct {
		name string
		v    int64
		min  int64
	}{{"max-sessions", int64(c.MaxSessions), 1}, {"login-rate", int64(c.LoginRate), 0}, {"takeover-burst", int64(c.TakeoverBurst), 1}, {"pending-max", c.PendingMax, 1 << 10}} {
		if f.v < f.min {
			return fmt.Errorf("%s is %d: want at least %d", f.name, f.v, f.min)
		}
	}
	if err := c.Limits.validate(); err != nil {
		return err
	}
	return c.Timings.validate()
}

// slack is what a renewal may take on its way beside everything that is counted.
const slack = 250 * time.Millisecond

// validate refuses timings under which a node would lose its lease to an election that goes well.
func (t Timings) validate() error {
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"heartbeat", t.Heartbeat}, {"election", t.Election}, {"lease", t.Lease}, {"margin", t.Margin}, {"renew", t.Renew}, {"quiet", t.Quiet}} {
		if f.d < 5*time.Millisecond || f.d > time.Hour {
			return fmt.Errorf("timings: %s is %v: want 5ms to 1h", f.name, f.d)
		}
	}
	if need := t.Renew + t.Margin + 3*t.Heartbeat + 2*t.Election + slack; need > t.Lease {
		return fmt.Errorf("timings: lease is %v but renew + margin + 3·heartbeat + 2·election + %v is %v: raise --lease or lower the others", t.Lease, slack, need)
	}
	if t.Quiet < t.Lease {
		return fmt.Errorf("timings: quiet is %v, shorter than the lease of %v", t.Quiet, t.Lease)
	}
	return nil
}
