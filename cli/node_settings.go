package cli

import (
	"time"

	"github.com/spf13/pflag"

	"imroute/node"
)

// nodeSettings is what a node can be told, by flags or in a file whose keys are the flags' names. Zero values leave the
// default to package node.
type nodeSettings struct {
	name, data    string
	bootstrap     bool
	join          []string
	joinToken     string
	joinTokenFile string
	joinWait      time.Duration
	nonVoter, dev bool

	discover           string // lan or off
	cluster            string
	secret, secretFile string
	bootstrapExpect    int
	discoverWait       time.Duration
	discoverInterface  []string
	discoverPort       int
	lan                bool // listen on the machine's address on the LAN; set by leaveLoopback

	mesh, clientTCP, clientWS, admin                                     string // where to listen
	advertise                                                            string // host for all four
	advertiseMesh, advertiseClientTCP, advertiseClientWS, advertiseAdmin string

	adminCert, adminKey   string
	adminNodeCert         bool
	clientCert, clientKey string
	clientKeys            string
	clientIssuer          string
	clientAudience        string
	duplicate             string
	onePerClass           bool
	voters                uint32

	heartbeat, election, lease, margin, renew, quiet time.Duration
	idle                                             time.Duration
	maxPayload, maxSessions, loginRate, lanes        int
	takeoverBurst                                    int
	limits                                           node.Limits
	takeoverEvery, checkEvery, diskTimeout           time.Duration
	anyOrigin                                        bool
	assignPolicy                                     string
	webhook, webhookSecret, webhookSecretFile        string
	webhookEvents                                    []string
	loginWebhook, friendsWebhook                     string
	friendsTTL                                       time.Duration
	journal                                          string // for tests

	logLevel, logFormat string
}

// notInFile are flags of "node start" that make no sense in its configuration file.
var notInFile = map[string]bool{"config": true, "parent-pipe": true, "help": true}

func (s *nodeSettings) flags(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", "", "the node's name, unique in the cluster (needed at the first start)")
	f.StringVar(&s.data, "data", "", "data folder")
	f.BoolVar(&s.bootstrap, "bootstrap", false, "found a new cluster")
	f.StringSliceVar(&s.join, "join", nil, "join the cluster of these nodes: mesh addresses HOST:PORT, or dns:NAME[:PORT] for all that a name's SRV (_imroute._udp.NAME), A and AAAA records say; tried in turn")
	f.DurationVar(&s.joinWait, "join-wait", 0, "try to join again for this long while no member answers (default 30s)")
	f.StringVar(&s.joinToken, "token", "", "join token")
	f.StringVar(&s.joinTokenFile, "token-file", "", "file that holds the join token")
	f.StringVar(&s.discover, "discover", "", "lan: find the cluster on the local network by --cluster and --secret, or found it; off: do not announce this node")
	f.StringVar(&s.cluster, "cluster", "", "the cluster's name on the LAN, with --discover lan")
	f.StringVar(&s.secret, "secret", "", "what all nodes of the cluster share, at least 16 characters (see --secret-file)")
	f.StringVar(&s.secretFile, "secret-file", "", "file that holds the secret: a command line can be read by everybody on the machine")
	f.IntVar(&s.bootstrapExpect, "bootstrap-expect", 0, "with --discover: found a cluster only when so many nodes hear each other; a majority of all nodes there will be rules out two clusters in a split network (default: whoever is there after --discover-wait)")
	f.DurationVar(&s.discoverWait, "discover-wait", 0, "with --discover: listen for this long before founding (default 3s)")
	f.StringSliceVar(&s.discoverInterface, "discover-interface", nil, "with --discover: only on these network interfaces (default: all)")
	f.IntVar(&s.discoverPort, "discover-port", 0, "with --discover: UDP port of the announcements (default 7904)")
	f.BoolVar(&s.nonVoter, "non-voter", false, "never become a voter without being told to")
	f.BoolVar(&s.dev, "dev", false, "development mode: no tokens for clients and operators, loopback only")

	f.StringVar(&s.mesh, "mesh", "", "listen for peers here, UDP (default \""+defaultBinds.Mesh+"\", or free ports if that is taken)")
	f.StringVar(&s.clientTCP, "client", "", "listen for clients here, TCP (default \""+defaultBinds.ClientTCP+"\")")
	f.StringVar(&s.clientTCP, "client-tcp", "", "same as --client")
	f.StringVar(&s.clientWS, "client-ws", "", "listen for WebSocket clients here (default \""+defaultBinds.ClientWS+"\")")
	f.StringVar(&s.admin, "admin", "", "listen for the admin API here (default \""+defaultBinds.Admin+"\")")
	_ = f.MarkHidden("client-tcp") // the flag exists
	f.StringVar(&s.advertise, "advertise", "", "host that others dial instead of the ones listened on")
	f.StringVar(&s.advertiseMesh, "advertise-mesh", "", "host or host:port for peers")
	f.StringVar(&s.advertiseClientTCP, "advertise-client-tcp", "", "host or host:port for clients")
	f.StringVar(&s.advertiseClientWS, "advertise-client-ws", "", "host or host:port for WebSocket clients")
	f.StringVar(&s.advertiseAdmin, "advertise-admin", "", "host or host:port for the admin API")

	f.StringVar(&s.adminCert, "admin-cert", "", "certificate of the admin API (PEM)")
	f.StringVar(&s.adminKey, "admin-key", "", "key of the admin API (PEM)")
	f.BoolVar(&s.adminNodeCert, "admin-node-cert", false, "use a certificate of the cluster's own CA for the admin API, with its addresses; clients check it with identity/ca.crt of the data folder")
	f.StringVar(&s.clientCert, "client-cert", "", "certificate for clients (PEM); without one clients are not encrypted")
	f.StringVar(&s.clientKey, "client-key", "", "key for clients (PEM)")
	f.StringVar(&s.clientKeys, "client-keys", "", "file with the keys that check login tokens (default: the cluster's own)")
	f.StringVar(&s.clientIssuer, "client-issuer", "", "login tokens must come from this issuer: their claim iss (default: any)")
	f.StringVar(&s.clientAudience, "client-audience", "", "login tokens must be for this audience: it is in their claim aud (default: any)")
	f.StringVar(&s.duplicate, "duplicate-login", "", "what a second login under one id does, replace or reject; only for the node that founds the cluster")
	f.BoolVar(&s.onePerClass, "one-per-class", false, "a user has one session for each class of device at most: of ids user/class:device and user/class; only for the node that founds the cluster")
	f.Uint32Var(&s.voters, "target-voters", 0, "promote joiners up to this many voters; only for the node that founds the cluster (default 3)")

	f.DurationVar(&s.heartbeat, "heartbeat", 0, "Raft heartbeat (default 500ms)")
	f.DurationVar(&s.election, "election", 0, "Raft election time-out (default 500ms)")
	f.DurationVar(&s.lease, "lease", 0, "how long a node's right to deliver lasts (default 4s)")
	f.DurationVar(&s.margin, "margin", 0, "by which holder and leader of a lease each err to the safe side (default 250ms)")
	f.DurationVar(&s.renew, "renew", 0, "time between two renewals of the lease (default 500ms)")
	f.DurationVar(&s.quiet, "quiet", 0, "after this long without a lease clients are sent elsewhere (default 10s)")
	f.DurationVar(&s.idle, "idle", 0, "a client that is silent for this long is gone (default 30s)")
	f.IntVar(&s.maxPayload, "max-payload", 0, "largest message in bytes (default 1048576)")
	f.IntVar(&s.maxSessions, "max-sessions", 0, "most clients on this node (default 100000)")
	f.IntVar(&s.loginRate, "login-rate", 0, "most logins a second (default: no limit)")
	f.IntVar(&s.limits.ClientRate, "client-rate", 0, "most messages a second of one client (default: no limit)")
	f.IntVar(&s.limits.ClientBytes, "client-bytes", 0, "most bytes of payload a second of one client (default: no limit)")
	f.IntVar(&s.limits.TenantRate, "tenant-rate", 0, "most messages a second of one tenant in the cluster; each node enforces its share (default: no limit)")
	f.IntVar(&s.limits.TenantBytes, "tenant-bytes", 0, "most bytes of payload a second of one tenant in the cluster (default: no limit)")
	f.IntVar(&s.limits.TenantSessions, "tenant-sessions", 0, "most connections of one tenant in the cluster (default: no limit)")
	f.IntVar(&s.limits.TenantLogins, "tenant-logins", 0, "most logins a second of one tenant in the cluster (default: no limit)")
	f.DurationVar(&s.limits.Burst, "limit-burst", 0, "what may be saved up is a rate times this (default 1s)")
	f.StringVar(&s.limits.File, "tenants", "", "file with limits of single tenants: a YAML mapping of tenants to those of the limits that differ")
	f.IntVar(&s.takeoverBurst, "takeover-burst", 0, "how often in a row a client id may be taken over by another device (default 5)")
	f.DurationVar(&s.takeoverEvery, "takeover-every", 0, "then once in this time (default 2s)")
	f.DurationVar(&s.checkEvery, "check-every", 0, "time between two comparisons of the sessions with the table (default 5m)")
	f.DurationVar(&s.diskTimeout, "disk-timeout", 0, "a write to the log that takes longer than this ends the node (default 10s)")
	f.IntVar(&s.lanes, "lanes", 0, "ordered streams to each peer (default 4)")
	f.BoolVar(&s.anyOrigin, "any-origin", false, "let web pages of any origin connect over WebSocket")

	f.StringVar(&s.assignPolicy, "assign-policy", "", "which node assign names to a client: min-clients, round-robin or hash (default min-clients)")

	f.StringVar(&s.webhook, "webhook", "", "tell this URL what happens to clients (https, or http on loopback)")
	f.StringVar(&s.webhookSecret, "webhook-secret", "", "signs what is sent to the webhooks, at least 16 characters (see --webhook-secret-file)")
	f.StringVar(&s.webhookSecretFile, "webhook-secret-file", "", "file that holds the webhook's secret: a command line can be read by everybody on the machine")
	f.StringVar(&s.loginWebhook, "login-webhook", "", "ask this URL at each login what the client may do: POST {\"login\":{\"client\",\"tenant\",\"user\",\"node\"}}, signed with --webhook-secret; it answers {\"send\":[…],\"join\":[…]}, patterns as in tokens (beside the token's: both must allow) and nothing else, or 4xx to turn the client away")
	f.StringVar(&s.friendsWebhook, "friends-webhook", "", "ask this URL who a client's friends are when it watches them: POST {\"friends_of\":{\"client\",\"tenant\",\"user\"}}, signed with --webhook-secret; it answers {\"friends\":[ids…]}, or 404 for nobody")
	f.DurationVar(&s.friendsTTL, "friends-ttl", 0, "for how long an answer of --friends-webhook serves (default 30s)")
	f.StringSliceVar(&s.webhookEvents, "webhook-events", nil, "what it is told of: connected, disconnected, undeliverable (default: all)")

	f.StringVar(&s.journal, "journal", "", "write every delivery down in this file, for tests")
	_ = f.MarkHidden("journal") // the flag exists

	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
}

// explicitBinds tells whether the operator chose any address to listen on.
func (s *nodeSettings) explicitBinds() bool {
	return s.mesh != "" || s.clientTCP != "" || s.clientWS != "" || s.admin != ""
}
