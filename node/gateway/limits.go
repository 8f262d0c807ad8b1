package gateway

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// Limits are what clients may use. Zero in any field: no limit.
//
// Those of a client are kept exactly, by the node that it is connected to. Those of a tenant are for the whole cluster; each
// node enforces its share, which is one of as many as there are nodes that take clients, so a tenant whose clients sit
// unevenly gets less than its due and never more. Rates may be exceeded for a moment by what was saved up, Burst at most.
type Limits struct {
	ClientRate  int // messages a second of one client
	ClientBytes int // bytes of payload a second of one client

	TenantRate     int // messages a second of all clients of a tenant, in the cluster
	TenantBytes    int // bytes of payload a second of all clients of a tenant, in the cluster
	TenantSessions int // connections of a tenant, in the cluster
	TenantLogins   int // logins a second of a tenant, in the cluster
}

func (l Limits) none() bool { return l == Limits{} }

// Validate names the field at fault.
func (l Limits) Validate() error {
	for _, f := range []struct {
		name string
		v    int
		most int
	}{
		{"client-rate", l.ClientRate, maxRate},
		{"client-bytes", l.ClientBytes, maxByteRate},
		{"tenant-rate", l.TenantRate, maxRate},
		{"tenant-bytes", l.TenantBytes, maxByteRate},
		{"tenant-sessions", l.TenantSessions, 1 << 30},
		{"tenant-logins", l.TenantLogins, maxRate},
	} {
		if f.v < 0 || f.v > f.most {
			return fmt.Errorf("%s is %d: want 1 to %d, or 0 for no limit", f.name, f.v, f.most)
		}
	}
	return nil
}

const (
	maxRate     = 1e7
	maxByteRate = 1e9

	// leastBurst is what can be saved up at least: the clock that limits go by stands still for a tick.
	leastBurst = 2 * tick
)

// Limiting is how limits are set for a gateway.
type Limiting struct {
	Limits                    // of clients and tenants that have none of their own
	Tenants map[string]Limits // by tenant, instead of Limits as a whole. Kept by reference: not to be changed
	Burst   time.Duration     // what may be saved up is a rate times this. Default 1 s, 500 ms to 1 min
	Nodes   func() int        // how many nodes share the limits of tenants, asked once a second. Nil: 1
}

func (l *Limiting) validate() error {
	orDefault(&l.Burst, time.Second)
	if l.Burst < leastBurst || l.Burst > time.Minute {
		return fmt.Errorf("gateway config: Limits: Burst is %v: want %v to 1m", l.Burst, leastBurst)
	}
	if err := l.Limits.Validate(); err != nil {
		return fmt.Errorf("gateway config: Limits: %w", err)
	}
	for name, t := range l.Tenants {
		if err := (wire.ClientID{Tenant: name, ID: "x"}).Validate(); err != nil {
			return fmt.Errorf("gateway config: Limits: %w", err)
		}
		if err := t.Validate(); err != nil {
			return fmt.Errorf("gateway config: Limits: tenant %q: %w", name, err)
		}
	}
	return nil
}

// off says that there is nothing to keep to.
func (l *Limiting) off() bool {
	if !l.none() {
		return false
	}
	for _, t := range l.Tenants {
		if !t.none() {
			return false
		}
	}
	return true
}

func (l *Limiting) of(tenant string) Limits {
	if t, own := l.Tenants[tenant]; own {
		return t
	}
	return l.Limits
}

// A bucket is one number: the moment at which all that was taken is paid for (the generic cell rate algorithm). What is
// saved up shows in how far that lies in the past, what is owed in how far it lies ahead. Times are of the coarse clock.
//
// take asks for n units at the price of cost nanoseconds together, at the moment now; the new moment, or for how much longer
// there is nothing to take. What costs more than can be saved up passes when nothing is owed.
func take(paid, cost, burst, now int64) (next, wait int64) {
	from := max(paid, now)
	next = from + cost
	if over := next - now - burst; over > 0 && from > now {
		return paid, min(over, from-now)
	}
	return next, 0
}

// price is n units at rate a second, in nanoseconds, shared by nodes.
func price(n, rate, nodes int) int64 {
	return int64(n) * int64(time.Second) / int64(rate) * int64(nodes)
}

// meter is one session's own buckets. It belongs to its read goroutine.
type meter struct {
	msgs, bytes int64 // paid until
	ahead       int   // messages that were taken from the tenant's bucket and not used yet
	aheadAt     int64 // at that moment: they are for the same tick only
	batch       int   // how many to take next
}

// tenant is what the sessions of one tenant on this node share.
type tenant struct {
	name     string
	limits   Limits
	sessions atomic.Int64
	refs     int // guarded by tenants.mu

	msgs, bytes, logins atomic.Int64 // paid until
}

// maxAhead is how many messages a session takes from its tenant's bucket at once, so that those that send much seldom meet
// there. It begins with one for each tick: those that send little take no more than they need.
const maxAhead = 64

// takeShared is take for a bucket that many use.
func takeShared(paid *atomic.Int64, cost, burst, now int64) (wait int64) {
	for {
		was := paid.Load()
		next, wait := take(was, cost, burst, now)
		if wait > 0 {
			return wait
		}
		if paid.CompareAndSwap(was, next) {
			return 0
		}
	}
}

// tenants are those that have sessions here.
type tenants struct {
	limiting Limiting
	nodes    atomic.Int64 // that share a tenant's limits

	mu  sync.Mutex
	all map[string]*tenant
}

func newTenants(l Limiting) *tenants {
	t := &tenants{limiting: l, all: map[string]*tenant{}}
	t.nodes.Store(1)
	return t
}

// enter counts a session in. nil and no error: there are no limits.
func (ts *tenants) enter(name string, now int64) (*tenant, Drop, error) {
	if ts == nil {
		return nil, 0, nil
	}
	ts.mu.Lock()
	t := ts.all[name]
	if t == nil {
		t = &tenant{name: name, limits: ts.limiting.of(name)}
		ts.all[name] = t
	}
	nodes := int(ts.nodes.Load())
	if most := t.limits.TenantSessions; most > 0 && int(t.sessions.Load()) >= (most+nodes-1)/nodes {
		ts.mu.Unlock()
		return nil, DropTenantSessions, fmt.Errorf("tenant %q has as many connections at this node as it may, %d of %d in the cluster", name, (most+nodes-1)/nodes, most)
	}
	if r := t.limits.TenantLogins; r > 0 {
		if wait := takeShared(&t.logins, price(1, r, nodes), int64(ts.limiting.Burst), now); wait > 0 {
			ts.mu.Unlock()
			return nil, DropTenantLogins, fmt.Errorf("tenant %q logs in more often than it may, %d times a second in the cluster: wait for retry_ms", name, r)
		}
	}
	t.refs++
	t.sessions.Add(1)
	ts.mu.Unlock()
	return t, 0, nil
}

// leave ends what enter began. A tenant without sessions is forgotten once it owes nothing.
func (ts *tenants) leave(t *tenant, now int64) {
	if t == nil {
		return
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t.sessions.Add(-1)
	if t.refs--; t.refs == 0 && t.owesNothing(now) {
		delete(ts.all, t.name)
	}
}

func (t *tenant) owesNothing(now int64) bool {
	return t.msgs.Load() <= now && t.bytes.Load() <= now && t.logins.Load() <= now
}

// second asks how many nodes there are, and forgets tenants that have gone and paid.
func (ts *tenants) second(now int64) {
	if ts.limiting.Nodes != nil {
		ts.nodes.Store(int64(max(1, ts.limiting.Nodes())))
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for name, t := range ts.all {
		if t.refs == 0 && t.owesNothing(now) {
			delete(ts.all, name)
		}
	}
}

// charge takes one message of that many bytes. wait 0: taken; else for how long not, and why.
func (ts *tenants) charge(t *tenant, m *meter, size int, now int64) (wait int64, why Drop) {
	l, burst := &t.limits, int64(ts.limiting.Burst)
	msgs, bytes := m.msgs, m.bytes
	if l.ClientRate > 0 {
		if msgs, wait = take(msgs, price(1, l.ClientRate, 1), burst, now); wait > 0 {
			return wait, DropClientRate
		}
	}
	if l.ClientBytes > 0 {
		if bytes, wait = take(bytes, price(size, l.ClientBytes, 1), burst, now); wait > 0 {
			return wait, DropClientBytes
		}
	}
	nodes := int(ts.nodes.Load())
	if l.TenantBytes > 0 {
		if wait = takeShared(&t.bytes, price(size, l.TenantBytes, nodes), burst, now); wait > 0 {
			return wait, DropTenantBytes
		}
	}
	if l.TenantRate > 0 {
		if wait = m.fromTenant(t, nodes, burst, now); wait > 0 {
			return wait, DropTenantRate // what it took of the bytes is lost to the tenant, which is over its limit anyway
		}
	}
	m.msgs, m.bytes = msgs, bytes
	return 0, 0
}

// fromTenant takes one message off the tenant's bucket, several at once for those that come again within a tick.
func (m *meter) fromTenant(t *tenant, nodes int, burst, now int64) (wait int64) {
	if m.aheadAt != now {
		m.ahead, m.aheadAt, m.batch = 0, now, 1
	}
	if m.ahead > 0 {
		m.ahead--
		return 0
	}
	one := price(1, t.limits.TenantRate, nodes)
	for n := max(m.batch, 1); ; n /= 2 {
		if wait = takeShared(&t.msgs, one*int64(n), burst, now); wait == 0 {
			m.ahead, m.batch = n-1, min(2*n, maxAhead)
			return 0
		}
		if n == 1 {
			m.batch = 1
			return wait
		}
	}
}
