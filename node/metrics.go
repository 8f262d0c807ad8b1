package node

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imroute/mesh"
	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/admin/metrics"
)

// counters of what the node itself does; what its parts count is read from them when asked.
type nodeMetrics struct {
	registry      *prometheus.Registry
	observe       *metrics.Metrics
	registrations metrics.Codes
	nacks         metrics.Codes
	takeovers     atomic.Uint64
	refusedGrants atomic.Uint64
	// loginAsksFailed counts logins that were turned away because the login webhook gave no usable answer.
	loginAsksFailed atomic.Uint64
	expiries        atomic.Uint64
	refusedFights   atomic.Uint64
	checks          atomic.Uint64
	repairs         struct{ rows, sessions atomic.Uint64 }
	proposer        proposerStats
	quiet           quietTime
}

// repaired counts a repair by its kind.
func (m *nodeMetrics) repaired(kind string) {
	if kind == admin.RowWithoutSession {
		m.repairs.rows.Add(1)
	} else {
		m.repairs.sessions.Add(1)
	}
}

// proposerStats counts batches; nil counts nothing.
type proposerStats struct {
	batches, ops atomic.Uint64
	took         atomic.Int64 // nanoseconds
}

func (s *proposerStats) batch(ops int, took time.Duration) {
	if s != nil {
		s.batches.Add(1)
		s.ops.Add(uint64(ops))
		s.took.Add(int64(took))
	}
}

// quietTime sums the time without a lease.
type quietTime struct{ total, since atomic.Int64 }

func (q *quietTime) begin(at time.Duration) { q.since.CompareAndSwap(0, int64(at)) }

func (q *quietTime) end(at time.Duration) {
	if since := q.since.Swap(0); since != 0 {
		q.total.Add(int64(at) - since)
	}
}

func (q *quietTime) seconds(at time.Duration) float64 {
	total := time.Duration(q.total.Load())
	if since := q.since.Load(); since != 0 {
		total += at - time.Duration(since)
	}
	return total.Seconds()
}

// codeOf is the code an error carries.
func codeOf(err error) wire.Code {
	if err == nil {
		return wire.OK
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return wire.Internal
}

// openMetrics registers everything at a registry of this node's own: several nodes live in one process in tests.
func (n *Node) openMetrics() (err error) {
	m := &n.metrics
	m.registry = prometheus.NewRegistry()
	m.observe, err = metrics.NewMetrics(m.registry, metrics.Sources{
		Sessions:      func() float64 { return float64(n.gateway.Count()) },
		Routes:        func() float64 { return float64(n.fsm.Stats().Routes) },
		Void:          func() float64 { return float64(n.fsm.Stats().Void) },
		TableRAM:      func() float64 { return float64(n.fsm.Stats().Bytes) },
		Sends:         n.router.counts,
		Registrations: m.registrations.Counts,
		Logins:        func() map[wire.Code]uint64 { return n.gateway.Stats().Logins },
		Closes:        func() map[wire.Code]uint64 { return n.gateway.Stats().Closes },
		Nacks:         m.nacks.Counts,
		Drops: func() map[string]float64 {
			out := map[string]float64{}
			for why, v := range n.gateway.Stats().Drops {
				out[why.String()] = float64(v)
			}
			return out
		},
		HeldUp: func() float64 { return float64(n.gateway.Stats().HeldUp) },
		Paced:  func() float64 { return float64(n.gateway.Stats().Paced) },
		LaneQueueBytes: func() map[string]float64 {
			out := map[string]float64{}
			for _, p := range n.mesh.Peers() {
				for _, l := range p.Lanes {
					out[n.nameOf(p.ID)] += float64(l.QueuedBytes)
				}
			}
			return out
		},
		MeshSent:     n.meshTraffic(func(t mesh.Traffic) uint64 { return t.Sent }),
		MeshReceived: n.meshTraffic(func(t mesh.Traffic) uint64 { return t.Received }),
		PeersUp: func() float64 {
			up := 0
			for _, p := range n.mesh.Peers() {
				if p.DataUp {
					up++
				}
			}
			return float64(up)
		},
		Topics:        func() float64 { return float64(n.topicStats().topics) },
		Memberships:   func() float64 { return float64(n.topicStats().members) },
		FanoutBytes:   func() float64 { return float64(n.router.casts.fan.queued()) },
		FanoutArrived: func() float64 { return float64(n.router.casts.fan.arrived.Load()) },
		FanoutReached: func() float64 { return float64(n.router.casts.fan.reached.Load()) },
		FanoutRefused: func() float64 { return float64(n.router.casts.fan.refused.Load()) },

		RequestsTaken:   func() float64 { return float64(n.router.services.taken.Load()) },
		RequestsRefused: func() float64 { return float64(n.router.services.refused.Load()) },
		Watched:         func() float64 { return float64(n.presence.watched.Load()) },
		PresenceTold:    func() float64 { return float64(n.presence.told.Load()) },
		PresenceLate:    func() float64 { return float64(n.presence.behind.Load()) },

		RaftState:   func() string { return raftState(n.store.Stats().State) },
		Term:        func() float64 { return float64(n.store.Term()) },
		CommitIndex: func() float64 { return float64(n.store.CommitIndex()) },
		Applied:     func() float64 { return float64(n.fsm.Applied()) },
		ApplyLag: func() float64 {
			return float64(n.store.CommitIndex()) - float64(min(n.fsm.Applied(), n.store.CommitIndex()))
		},

		Takeovers:     func() float64 { return float64(m.takeovers.Load()) },
		LeaseLeft:     func() float64 { return n.lease.left(now()).Seconds() },
		Quiet:         func() float64 { return m.quiet.seconds(now()) },
		RefusedGrants: func() float64 { return float64(m.refusedGrants.Load()) },
		Expiries:      func() float64 { return float64(m.expiries.Load()) },
		RefusedFights: func() float64 { return float64(m.refusedFights.Load()) },
		RouteChecks:   func() float64 { return float64(m.checks.Load()) },
		RouteRepairs: func() map[string]float64 {
			return map[string]float64{
				admin.RowWithoutSession: float64(m.repairs.rows.Load()), admin.SessionWithoutRow: float64(m.repairs.sessions.Load()),
			}
		},
		WebhookQueued:    func() float64 { return float64(n.hook.Stats().Queued) },
		WebhookDelivered: func() float64 { return float64(n.hook.Stats().Delivered) },
		WebhookFailures:  func() float64 { return float64(n.hook.Stats().Failures) },
		LoginAsksFailed:  func() float64 { return float64(m.loginAsksFailed.Load()) },
		WebhookDropped: func() map[string]float64 {
			st := n.hook.Stats()
			return map[string]float64{"overflow": float64(st.Overflow), "refused": float64(st.Refused)}
		},
		DiscoveryRejected: n.discovery.rejected,
		ForeignClusters:   n.discovery.foreignClusters,
		FreeDisk: func() float64 {
			free, _ := n.dir.Free()
			return float64(free)
		},
		StoreBytes: func() float64 { return float64(n.store.Stats().StoreBytes) },
		Fsync: func() metrics.Histogram {
			f := n.store.Stats().Fsync
			h := metrics.Histogram{Count: f.Count, Sum: f.Sum.Seconds(), Buckets: map[float64]uint64{}}
			total := uint64(0)
			for i, bound := range f.Bounds {
				total += f.Counts[i]
				h.Buckets[bound.Seconds()] = total
			}
			return h
		},
	})
	return err
}

// meshTraffic reads one of the counters of all peers.
func (n *Node) meshTraffic(which func(mesh.Traffic) uint64) func() map[string]float64 {
	return func() map[string]float64 {
		out := map[string]float64{}
		for _, p := range n.mesh.Peers() {
			out[n.nameOf(p.ID)] = float64(which(p.Traffic))
		}
		return out
	}
}

func (m *nodeMetrics) handler(log *slog.Logger) http.Handler { return metrics.Handler(m.registry, log) }

// commit is the revision this program was built from, if the build recorded it.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}
