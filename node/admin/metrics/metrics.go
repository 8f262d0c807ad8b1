package metrics

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"imroute/mesh/wire"
)

// Sources are where the values come from. Each is called when the metrics are read, possibly by several readers at once;
// it must not block for long and hand out maps that nobody changes any more. A nil source leaves its metric out.
type Sources struct {
	Sessions func() float64 // open sessions of this node's clients
	Watches  func() float64 // event streams that are read
	Routes   func() float64 // live rows of the table
	Void     func() float64 // void rows that are not reclaimed yet
	TableRAM func() float64 // bytes of the table

	Sends         func() map[wire.Code]uint64 // sends of this node's clients and API, by result
	Registrations func() map[wire.Code]uint64 // answered registrations: OK, Refused …
	Logins        func() map[wire.Code]uint64 // logins by OK or the reason of refusal
	Closes        func() map[wire.Code]uint64 // closed sessions by reason
	Nacks         func() map[wire.Code]uint64 // messages of peers that this node refused

	Drops  func() map[string]float64 // what clients sent or should have got and was dropped, by reason
	HeldUp func() float64            // times that a client was read no further until it had read its answers
	Paced  func() float64            // times that accepting clients waited because the processor was short

	LaneQueueBytes func() map[string]float64 // bytes that wait for a peer, by its name
	MeshSent       func() map[string]float64 // bytes of packets sent to a peer, by its name
	MeshReceived   func() map[string]float64 // and received
	PeersUp        func() float64            // peers with a data connection

	Topics        func() float64 // groups and services with members here, or agreed to have some
	Memberships   func() float64 // sessions in them, each once for each
	FanoutBytes   func() float64 // messages to many that wait to be handed to sessions here
	FanoutArrived func() float64 // messages to many taken by this node
	FanoutReached func() float64 // sessions here that took one
	FanoutRefused func() float64 // messages to many refused for want of room

	RequestsTaken   func() float64 // requests that an instance of a service here took
	RequestsRefused func() float64 // requests that no instance here could take
	Watched         func() float64 // client ids that sessions here watch
	PresenceTold    func() float64 // states told to watchers here
	PresenceLate    func() float64 // states that had to wait for room

	RaftState   func() string // follower, candidate, leader, shutdown
	Term        func() float64
	CommitIndex func() float64
	Applied     func() float64 // our own applied index
	ApplyLag    func() float64 // entries committed and not applied

	Takeovers        func() float64            // logins that took a client over from another node
	LeaseLeft        func() float64            // seconds; negative once it is over
	Quiet            func() float64            // seconds spent without a lease since the start
	RefusedGrants    func() float64            // renewals this node refused as leader
	LoginAsksFailed  func() float64            // logins turned away because the login webhook gave no usable answer
	Expiries         func() float64            // incarnations this node proposed to end as leader
	RouteChecks      func() float64            // comparisons of the sessions with the table
	RouteRepairs     func() map[string]float64 // differences repaired, by kind
	RefusedFights    func() float64            // logins refused because the client id changed hands too often
	WebhookQueued    func() float64            // events that wait
	WebhookDelivered func() float64            // events taken by the back end
	WebhookFailures  func() float64            // requests that failed and are tried again
	WebhookDropped   func() map[string]float64 // events given up, by reason
	// Discovery: announcements that were ignored, by reason, and other clusters under this one's name and secret.
	DiscoveryRejected func() map[string]float64
	ForeignClusters   func() float64
	FreeDisk          func() float64   // bytes
	StoreBytes        func() float64   // bytes
	Fsync             func() Histogram // seconds of each write to the Raft store, its fsync included
}

// Histogram is a distribution that somebody else counted: Buckets has, for each upper bound, how many were at most that.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64
}

// Metrics are the distributions that the node observes. All methods of its fields may be called from many goroutines.
type Metrics struct {
	ConfirmTerm prometheus.Observer // seconds of each round that confirmed the leader's term
	Takeover    prometheus.Observer // seconds a login waited for a former owner to be fenced
}

// raftStates are all the label values of imroute_raft_state: one of them is 1.
var raftStates = []string{"follower", "candidate", "leader", "shutdown"}

// NewMetrics registers the node's metrics, and those of the Go runtime and the process, at r, which must be this node's
// own. It fails if something of the same name is registered already.
func NewMetrics(r prometheus.Registerer, s Sources) (*Metrics, error) {
	var err error
	add := func(c prometheus.Collector) { err = errors.Join(err, r.Register(c)) }
	histogram := func(name, help string, first float64) prometheus.Observer {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, 16),
		})
		add(h)
		return h
	}
	m := &Metrics{
		ConfirmTerm: histogram("imroute_confirm_term_seconds", "Time of each round that confirmed the leader's term.", 50e-6),
		Takeover:    histogram("imroute_takeover_wait_seconds", "Time a login waited until the client's former owner was fenced.", 500e-6),
	}
	add(newCollector(s))
	add(collectors.NewGoCollector())
	add(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m, err
}

// Handler serves what g gathers in Prometheus' text formats, a few readers at a time. A metric that cannot be gathered is
// logged and left out.
func Handler(g prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	})
}
