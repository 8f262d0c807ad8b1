package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Result is one run. Times are microseconds; CPU is seconds per million messages (or logins), servers and load generator
// apart, and 0 where it cannot be read. The fields up to duration_ms are common to all runs, also to those of other
// systems.
type Result struct {
	Name       string  `json:"name"`
	Pairs      int     `json:"pairs"` // login: logins at once; idle, failover: clients; group: members; service: askers
	Size       int     `json:"size"`
	Offered    float64 `json:"offered_per_s"` // 0: as fast as the window allows
	Received   int64   `json:"received"`      // within the measured time
	Lost       int64   `json:"lost"`          // of the whole run
	Rate       float64 `json:"rate_per_s"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	P999       float64 `json:"p999_us"`
	ServerCPU  float64 `json:"server_cpu_s_per_million"`
	LoadCPU    float64 `json:"load_cpu_s_per_million"`
	DurationMS int64   `json:"duration_ms"`

	Cluster    string `json:"cluster"` // "own": started for this run; "given": named by the caller
	Duplicated int64  `json:"duplicated"`
	Disordered int64  `json:"disordered"` // of the whole run: arrived behind a later one of the same sender
	Damaged    int64  `json:"damaged"`    // arrived otherwise than they were sent

	Send     *SendResult     `json:"send,omitempty"`
	Idle     *IdleResult     `json:"idle,omitempty"`
	Failover *FailoverResult `json:"failover,omitempty"`
	Overload *OverloadResult `json:"overload,omitempty"`
	Group    *GroupResult    `json:"group,omitempty"`
	Service  *ServiceResult  `json:"service,omitempty"`
	Table    *TableResult    `json:"table,omitempty"`
	Mesh     *MeshResult     `json:"mesh,omitempty"`

	// Problems says why a run is not to be trusted, for people: one line each. Empty for a good one.
	Problems []string `json:"problems,omitempty"`
}

// SendResult is what only "send" has.
type SendResult struct {
	Ack       string `json:"ack"`
	Placement string `json:"placement"` // across, local or mix
	Spread    bool   `json:"spread"`
	Transport string `json:"transport"`
	Window    int    `json:"window"` // most messages in flight for each recipient

	// Latency from the moment a message was really handed to the SDK. It differs from p50_us and p99_us only in an open
	// loop, by what the generator itself was late; generators that stamp messages as they send them report this one.
	SentP50 float64 `json:"sent_p50_us"`
	SentP99 float64 `json:"sent_p99_us"`
}

// IdleResult is what only "idle" has.
type IdleResult struct {
	RSSBefore  int64 `json:"rss_before_bytes"` // of the node that holds the connections
	RSSAfter   int64 `json:"rss_after_bytes"`
	PerConn    int64 `json:"rss_per_connection_bytes"`
	LoadRSS    int64 `json:"load_rss_bytes"`      // of the generator: the SDK's side
	ConnectMS  int64 `json:"connect_ms"`          // all logins together
	NodesCPUMS int64 `json:"server_cpu_ms_per_s"` // of all nodes while idle
	LoadCPUMS  int64 `json:"load_cpu_ms_per_s"`   // of the generator while idle
}

// FailoverResult is what only "failover" has. Result's quantiles are those of the times from the kill until each client
// was routed again.
type FailoverResult struct {
	Victim       string  `json:"victim"`
	WasLeader    bool    `json:"was_leader"`
	AllRoutedMS  int64   `json:"all_routed_ms"` // 0: not all were
	BeforeP50    float64 `json:"others_before_p50_us"`
	BeforeP99    float64 `json:"others_before_p99_us"`
	MeanwhileP50 float64 `json:"others_meanwhile_p50_us"`
	MeanwhileP99 float64 `json:"others_meanwhile_p99_us"`
	OthersLost   int64   `json:"others_lost"`
}

// TableResult is what only "table" has. Result's received, rate and quantiles are of registrations applied while a snapshot was
// written: the quantiles are those of the time that one entry of 512 took. Lost are look-ups and routes that were not found.
type TableResult struct {
	BytesPerRoute     float64  `json:"bytes_per_route"`       // by which the heap grew
	PageBytesPerRoute float64  `json:"table_bytes_per_route"` // by the table's own books
	TableBytes        int64    `json:"table_bytes"`
	RSS               int64    `json:"rss_bytes"` // of this process behind the snapshot, when most is in use
	FillRate          float64  `json:"fill_per_s"`
	Lookups           int64    `json:"lookups"`
	LookupNS          float64  `json:"lookup_ns"`      // of any client at random; the median of rounds of 16,384
	LookupHotNS       float64  `json:"lookup_hot_ns"`  // of one of 4,096 clients
	MemoryReadNS      float64  `json:"memory_read_ns"` // one read of this machine at a random place of as many bytes as the table has
	LookupAllocs      float64  `json:"lookup_allocs"`
	GCWithout         GCResult `json:"gc_without"`
	GCWith            GCResult `json:"gc_with"`
	SnapshotTakeUS    float64  `json:"snapshot_take_us"`     // nothing is applied meanwhile
	LongestApplyUS    float64  `json:"longest_apply_us"`     // from taking the snapshot until it was written, including that
	LongestApplyCPUUS float64  `json:"longest_apply_cpu_us"` // the most CPU time that one of them took; Linux only
	SnapshotMS        int64    `json:"snapshot_ms"`
	SnapshotBytes     int64    `json:"snapshot_bytes"`
	RestoreMS         int64    `json:"restore_ms"`
}

// MeshResult is what only "mesh" has: a cluster without clients. Result's pairs is how many nodes it has. A link is what two nodes
// have between them, both ways taken together.
type MeshResult struct {
	Nodes         int     `json:"nodes"`
	StartMS       int64   `json:"start_ms"` // from the first process until all nodes were members and up
	CPUMSPerS     float64 `json:"cpu_ms_per_s"`
	CPUMSPerSMax  float64 `json:"cpu_ms_per_s_max"` // of the node that used most
	Links         int     `json:"links"`
	LinkBytes     float64 `json:"link_bytes_per_s"`
	LinkBytesMax  float64 `json:"link_bytes_per_s_max"` // of the link that carried most: one of the leader's
	LinkBytesLess float64 `json:"link_bytes_per_s_min"` // of the one that carried least
	RSS           int64   `json:"rss_bytes"`            // of a node, on average
}

// GCResult is what the garbage collector did. The steady load keeps 64 MiB in use and allocates 100 MiB a second.
type GCResult struct {
	Cycles         int64   `json:"cycles"`           // under the steady load
	CPUMSPerS      float64 `json:"cpu_ms_per_s"`     // likewise
	LongestPauseUS float64 `json:"longest_pause_us"` // likewise; the upper bound of the runtime's bucket
	CycleMS        float64 `json:"cycle_ms"`         // one whole collection
	CycleCPUMS     float64 `json:"cycle_cpu_ms"`
}

// Progress is how far a run is.
type Progress struct {
	Phase    string        // connecting, warm-up, measuring, draining, …
	Elapsed  time.Duration // of this phase
	Of       time.Duration // 0: until it is done
	Count    int64         // messages, logins or connections in this phase
	Lost     int64         // known by now
	Interval time.Duration // since the last report
	Since    int64         // part of Count in this interval
}

func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// books turns what the accounts say into problems.
func (r *Result) books(why string) {
	if r.Lost > 0 {
		r.problem("%s%s", plural(r.Lost, "message was lost", "messages were lost"), why)
	}
	if r.Duplicated > 0 {
		r.problem("%s", plural(r.Duplicated, "message arrived twice", "messages arrived twice"))
	}
	if r.Disordered > 0 {
		r.problem("%s", plural(r.Disordered, "message arrived behind a later one of its sender", "messages arrived behind later ones of their senders"))
	}
	if r.Damaged > 0 {
		r.problem("%s", plural(r.Damaged, "message arrived damaged", "messages arrived damaged"))
	}
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// quantiles fills in the three.
func (r *Result) quantiles(h *Histogram) {
	r.P50, r.P99, r.P999 = h.Quantile(.5), h.Quantile(.99), h.Quantile(.999)
}

// over fills in what is counted per second and per million.
func (r *Result) over(count int64, u usage) {
	r.Received, r.DurationMS = count, u.took.Milliseconds()
	if u.took > 0 {
		r.Rate = float64(count) / u.took.Seconds()
	}
	if count > 0 {
		millions := float64(count) / 1e6
		r.ServerCPU, r.LoadCPU = u.servers.Seconds()/millions, u.self.Seconds()/millions
	}
}

// usage is the CPU time used over some time.
type usage struct{ took, servers, self time.Duration }

// usageMark is where a usage begins.
type usageMark struct {
	at            time.Time
	servers, self time.Duration
}

func markUsage(pids []int) usageMark { return usageMark{time.Now(), cpuOf(pids), selfCPU()} }

func (m usageMark) until(pids []int) usage {
	return usage{time.Since(m.at), max(cpuOf(pids)-m.servers, 0), max(selfCPU()-m.self, 0)}
}

// RSS is the resident memory of a process in bytes, 0 where that is not known.
func RSS(pid int) int64 { return rssOf(pid) }

// ThreadCPU is the CPU time that this thread has used, 0 where that is not known. Whoever compares two has locked its goroutine
// to the thread.
func ThreadCPU() time.Duration { return threadCPU() }

// FreeMemory is how much memory the system can still give out in bytes, 0 where that is not known.
func FreeMemory() int64 { return freeMemory() }

// joinCodes says how often each code came.
func joinCodes(by map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d %s", by[name], name))
	}
	return strings.Join(parts, ", ")
}
