package metrics

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"imroute/mesh/wire"
)

// collector reads Sources when asked.
type collector struct {
	metrics   []metric
	fsync     func() Histogram // nil: left out
	fsyncDesc *prometheus.Desc
}

// metric is one name with a way to read its value or values.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(emit func(v float64, labels ...string))
}

func newCollector(s Sources) *collector {
	c := &collector{fsync: s.Fsync}
	c.fsyncDesc = prometheus.NewDesc("imroute_fsync_seconds", "Time of each write to the Raft store, its fsync included.", nil, nil)
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

	c.value(gauge, "imroute_sessions", "Open client sessions of this node.", s.Sessions)
	c.value(gauge, "imroute_watches", "Event streams that are being read.", s.Watches)
	c.value(gauge, "imroute_routes", "Live routes in this node's table.", s.Routes)
	c.value(gauge, "imroute_routes_void", "Void routes in this node's table that are not reclaimed yet.", s.Void)
	c.value(gauge, "imroute_table_bytes", "Memory of this node's table.", s.TableRAM)

	c.codes("imroute_sends_total", "Messages sent by clients and API of this node, by result.", "result", s.Sends)
	c.codes("imroute_registrations_total", "Answered registrations of this node, by result.", "result", s.Registrations)
	c.codes("imroute_logins_total", "Logins at this node, by result.", "result", s.Logins)
	c.codes("imroute_closes_total", "Sessions of this node that ended, by reason.", "reason", s.Closes)
	c.codes("imroute_nacks_total", "Messages of peers that this node refused, by reason.", "reason", s.Nacks)

	if s.Drops != nil {
		c.add(counter, "imroute_drops_total", "Messages, answers and connections of clients that this node did not take or did not write, by reason.", "reason",
			func(emit func(float64, ...string)) {
				for reason, v := range s.Drops() {
					emit(v, reason)
				}
			})
	}
	c.value(counter, "imroute_held_up_total", "How often reading from a client waited until it had read its answers.", s.HeldUp)
	c.value(counter, "imroute_paced_total", "How often accepting clients waited because the processor was short.", s.Paced)

	if s.LaneQueueBytes != nil {
		c.add(gauge, "imroute_lane_queue_bytes", "Bytes waiting to be sent to a peer or to be acknowledged by it.", "peer",
			func(emit func(float64, ...string)) {
				for peer, v := range s.LaneQueueBytes() {
					emit(v, peer)
				}
			})
	}
	c.byPeer("imroute_mesh_sent_bytes_total", "Bytes of packets sent to a peer.", s.MeshSent)
	c.byPeer("imroute_mesh_received_bytes_total", "Bytes of packets received from a peer.", s.MeshReceived)
	c.value(gauge, "imroute_peers_up", "Peers with a data connection to this node.", s.PeersUp)

	c.value(gauge, "imroute_topics", "Groups and services with members on this node.", s.Topics)
	c.value(gauge, "imroute_memberships", "Memberships of this node's sessions in groups and services.", s.Memberships)
	c.value(gauge, "imroute_fanout_queue_bytes", "Messages to many that wait to be handed to sessions of this node.", s.FanoutBytes)
	c.value(counter, "imroute_fanout_messages_total", "Messages to many that this node took.", s.FanoutArrived)
	c.value(counter, "imroute_fanout_deliveries_total", "Sessions of this node that took a message to many, each message apart.", s.FanoutReached)
	c.value(counter, "imroute_fanout_refused_total", "Messages to many that this node refused for want of room.", s.FanoutRefused)
	c.value(counter, "imroute_service_requests_total", "Requests that an instance of a service on this node took.", s.RequestsTaken)
	c.value(counter, "imroute_service_refused_total", "Requests that no instance of a service on this node could take.", s.RequestsRefused)
	c.value(gauge, "imroute_presence_watched", "Client ids that sessions of this node watch.", s.Watched)
	c.value(counter, "imroute_presence_states_total", "Presence states told to watchers on this node.", s.PresenceTold)
	c.value(counter, "imroute_presence_late_total", "Presence states that had to wait because their watcher did not keep up.", s.PresenceLate)

	if s.RaftState != nil {
		c.add(gauge, "imroute_raft_state", "1 for the Raft state this node is in.", "state",
			func(emit func(float64, ...string)) {
				now := s.RaftState()
				for _, st := range raftStates {
					v := 0.0
					if st == now {
						v = 1
					}
					emit(v, st)
				}
			})
	}
	c.value(gauge, "imroute_raft_term", "Raft's term as this node knows it.", s.Term)
	c.value(gauge, "imroute_raft_commit_index", "The commit index as this node knows it.", s.CommitIndex)
	c.value(gauge, "imroute_raft_applied_index", "The last entry that this node's table has applied.", s.Applied)
	c.value(gauge, "imroute_apply_lag", "Entries committed but not applied yet.", s.ApplyLag)

	c.value(counter, "imroute_takeovers_total", "Logins that took a client over from another node.", s.Takeovers)
	c.value(gauge, "imroute_lease_left_seconds", "Time left of this node's lease; negative once it is over.", s.LeaseLeft)
	c.value(counter, "imroute_quiet_seconds_total", "Time this node has spent without a lease.", s.Quiet)
	c.value(counter, "imroute_refused_grants_total", "Lease renewals that this node refused as leader.", s.RefusedGrants)
	c.value(counter, "imroute_expiries_total", "Incarnations that this node proposed to end as leader.", s.Expiries)
	c.value(counter, "imroute_takeovers_refused_total", "Logins refused because their client id had been taken over too often.", s.RefusedFights)
	c.value(counter, "imroute_route_checks_total", "Comparisons of this node's sessions with its rows in the table.", s.RouteChecks)
	if s.RouteRepairs != nil {
		c.add(counter, "imroute_route_repairs_total", "Differences between sessions and rows that were repaired.", "kind",
			func(emit func(float64, ...string)) {
				for kind, v := range s.RouteRepairs() {
					emit(v, kind)
				}
			})
	}
	c.value(gauge, "imroute_webhook_queue", "Events that wait for the webhook.", s.WebhookQueued)
	c.value(counter, "imroute_webhook_delivered_total", "Events that the webhook took.", s.WebhookDelivered)
	c.value(counter, "imroute_login_webhook_failures_total", "Logins that were turned away because the login webhook gave no usable answer.", s.LoginAsksFailed)
	c.value(counter, "imroute_webhook_failures_total", "Requests to the webhook that failed and are tried again.", s.WebhookFailures)
	if s.WebhookDropped != nil {
		c.add(counter, "imroute_webhook_dropped_total", "Events that never reached the webhook, by reason.", "reason",
			func(emit func(float64, ...string)) {
				for reason, v := range s.WebhookDropped() {
					emit(v, reason)
				}
			})
	}
	if s.DiscoveryRejected != nil {
		c.add(counter, "imroute_discovery_rejected_total", "Announcements on the LAN that were ignored.", "reason",
			func(emit func(float64, ...string)) {
				for reason, v := range s.DiscoveryRejected() {
					emit(v, reason)
				}
			})
	}
	c.value(gauge, "imroute_discovery_foreign_clusters", "Other clusters that announce themselves under this one's name and secret; more than 0 means that the network was split when they were founded.", s.ForeignClusters)
	c.value(gauge, "imroute_free_disk_bytes", "Free space where the data folder is.", s.FreeDisk)
	c.value(gauge, "imroute_store_bytes", "Size of the Raft store.", s.StoreBytes)
	return c
}

func (c *collector) add(kind prometheus.ValueType, name, help, label string, read func(emit func(float64, ...string))) {
	var labels []string
	if label != "" {
		labels = []string{label}
	}
	c.metrics = append(c.metrics, metric{prometheus.NewDesc(name, help, labels, nil), kind, read})
}

func (c *collector) value(kind prometheus.ValueType, name, help string, f func() float64) {
	if f != nil {
		c.add(kind, name, help, "", func(emit func(float64, ...string)) { emit(f()) })
	}
}

func (c *collector) codes(name, help, label string, f func() map[wire.Code]uint64) {
	if f != nil {
		c.add(prometheus.CounterValue, name, help, label, func(emit func(float64, ...string)) {
			for code, n := range f() {
				emit(float64(n), code.String())
			}
		})
	}
}

func (c *collector) byPeer(name, help string, f func() map[string]float64) {
	if f != nil {
		c.add(prometheus.CounterValue, name, help, "peer", func(emit func(float64, ...string)) {
			for peer, v := range f() {
				emit(v, peer)
			}
		})
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
	if c.fsync != nil {
		ch <- c.fsyncDesc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.metrics {
		m.read(func(v float64, labels ...string) {
			if math.IsNaN(v) {
				return // a source that does not know
			}
			pm, err := prometheus.NewConstMetric(m.desc, m.kind, v, labels...)
			if err != nil {
				pm = prometheus.NewInvalidMetric(m.desc, err)
			}
			ch <- pm
		})
	}
	if c.fsync != nil {
		h := c.fsync()
		pm, err := prometheus.NewConstHistogram(c.fsyncDesc, h.Count, h.Sum, h.Buckets)
		if err != nil {
			pm = prometheus.NewInvalidMetric(c.fsyncDesc, err)
		}
		ch <- pm
	}
}
