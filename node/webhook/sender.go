package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
)

// Config says where events go. Zero values mean what the comments say.
type Config struct {
	URL    string   // https, or http on loopback. Required
	Secret string   // signs every request; at least 16 characters. Required
	Events []string // which; empty: all

	Queue      int           // events that wait at most, of all clients together. 0: 20,000
	Timeout    time.Duration // of one request. 0: 5 s
	BackoffMin time.Duration // before a request is tried again, doubling, with jitter. 0: 200 ms
	BackoffMax time.Duration // 0: 30 s

	Client *http.Client // nil: one that follows no redirects
	Logger *slog.Logger // nil: nothing is logged
}

// MinSecret keeps out secrets that can be guessed.
const MinSecret = 16

const (
	shards   = 4   // requests at the same time; a client's events are always in the same one
	maxBatch = 100 // events of a request
)

// validate fills in defaults and names the field at fault.
func (c *Config) validate() (err error) {
	if err := checkTarget(c.URL, c.Secret); err != nil {
		return err
	}
	if c.Events, err = ParseEvents(c.Events); err != nil {
		return err
	}
	def(&c.Queue, 20_000)
	def(&c.Timeout, 5*time.Second)
	def(&c.BackoffMin, 200*time.Millisecond)
	def(&c.BackoffMax, 30*time.Second)
	if c.Queue < shards || c.Timeout < 0 || c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin {
		return errors.New("webhook: Queue, Timeout or back-off is out of range")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Shown is a URL as logs may have it: without its query, which may be a secret.
func Shown(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "(no URL)"
	}
	u.RawQuery = ""
	return u.Redacted()
}

// withoutURL takes the URL out of an error of http.Client.
func withoutURL(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// checkTarget refuses URLs that would show secrets, and secrets that are none.
func checkTarget(target, secret string) error {
	u, err := url.Parse(target)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("webhook: URL %q: want https://host/path", target)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fmt.Errorf("webhook: URL %q: plain http is for loopback only, use https", target)
	case len(secret) < MinSecret:
		return fmt.Errorf("webhook: the secret has %d characters: use at least %d random ones", len(secret), MinSecret)
	}
	return nil
}

// newClient makes a client that follows no redirects, for so many requests to one host at a time.
func newClient(atOnce int) (*http.Transport, *http.Client) {
	t := &http.Transport{MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	return t, &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// sign makes a request one that the back end can check.
func sign(req *http.Request, secret string, raw []byte) {
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "imroute-webhook")
	req.Header.Set(SignatureHeader, Sign(secret, time.Now(), raw))
}

func def[T int | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// Stats is a snapshot of what became of the events since Open.
type Stats struct {
	Queued    int
	Delivered uint64
	Overflow  uint64 // dropped: the queue was full
	Refused   uint64 // dropped: the back end said that it will never take them (400, 413, 415, 422)
	Lost      uint64 // dropped: the process ended before they were taken
	Failures  uint64 // requests that will be or were tried again
	Failing   bool   // the last request failed
}

// Dropped is how many events never arrived.
func (s Stats) Dropped() uint64 { return s.Overflow + s.Refused + s.Lost }

// Sender queues events and posts them. Methods may be called from any goroutine; on a nil Sender they do nothing.
type Sender struct {
	// Fixed after New.
	cfg    Config
	wants  map[string]bool
	shards [shards]*shard
	own    *http.Transport // nil: the client is the caller's

	ctx    context.Context // of the requests; fixed by Open
	cancel context.CancelFunc
	wg     sync.WaitGroup

	queued                                       atomic.Int64
	delivered, overflow, refused, lost, failures atomic.Uint64
	failing                                      atomic.Bool
	saidDrop                                     atomic.Int64 // Unix second of the last line about that
}

// shard is the queue of some of the clients.
type shard struct {
	mu     sync.Mutex
	events []Event       // guarded by mu
	wake   chan struct{} // capacity 1: there is something, or closed is set
	room   chan struct{} // guarded by mu; closed and replaced when events leave
	closed bool          // guarded by mu
}

// New checks the configuration; it starts nothing.
func New(cfg Config) (*Sender, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Sender{cfg: cfg, wants: map[string]bool{}}
	for _, e := range cfg.Events {
		s.wants[e] = true
	}
	for i := range s.shards {
		s.shards[i] = &shard{wake: make(chan struct{}, 1), room: make(chan struct{})}
	}
	if s.cfg.Client == nil {
		s.own, s.cfg.Client = newClient(shards)
	}
	return s, nil
}

// Open starts sending.
func (s *Sender) Open() {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, sh := range s.shards {
		s.wg.Go(func() { s.run(sh) })
	}
}

// Wants tells whether events of a kind are sent at all.
func (s *Sender) Wants(kind string) bool { return s != nil && s.wants[kind] }

func (s *Sender) shardOf(e *Event) *shard {
	return s.shards[wire.ClientID{Tenant: e.Tenant, ID: e.Client}.Hash()%shards]
}

// Emit queues an event, or counts it as dropped if there is no room. It never blocks.
func (s *Sender) Emit(e Event) {
	if !s.Wants(e.Event) {
		return
	}
	if ok, _ := s.put(&e); !ok {
		s.overflow.Add(1)
		if last, now := s.saidDrop.Load(), time.Now().Unix(); now >= last+10 && s.saidDrop.CompareAndSwap(last, now) {
			s.cfg.Logger.Warn("webhook events are dropped: the queue is full", "url", Shown(s.cfg.URL), "dropped", s.overflow.Load())
		}
	}
}

// EmitWait queues an event as soon as there is room. If ctx ends or the Sender closes before, it is counted as dropped.
func (s *Sender) EmitWait(ctx context.Context, e Event) {
	if !s.Wants(e.Event) {
		return
	}
	for {
		ok, room := s.put(&e)
		if ok {
			return
		}
		if room == nil {
			s.overflow.Add(1)
			return
		}
		select {
		case <-room:
		case <-ctx.Done():
			s.overflow.Add(1)
			return
		}
	}
}

// put queues e. Otherwise room is closed when it may be tried again; nil: never.
func (s *Sender) put(e *Event) (ok bool, room <-chan struct{}) {
	sh := s.shardOf(e)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case sh.closed:
		return false, nil
	case len(sh.events) >= s.cfg.Queue/shards:
		return false, sh.room
	}
	sh.events = append(sh.events, *e)
	s.queued.Add(1)
	signal(sh.wake)
	return true, nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// next returns the events that are to be sent next; they stay in the queue until done. more is false once it is closed and empty.
func (sh *shard) next() (events []Event, more bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return slices.Clone(sh.events[:min(len(sh.events), maxBatch)]), !sh.closed || len(sh.events) > 0
}

func (s *Sender) done(sh *shard, n int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.events = sh.events[n:]; len(sh.events) == 0 {
		sh.events = nil
	}
	close(sh.room)
	sh.room = make(chan struct{})
	s.queued.Add(-int64(n))
}

// run sends a shard's events until it is closed and empty, or Close gives up.
func (s *Sender) run(sh *shard) {
	for {
		events, more := sh.next()
		if !more {
			return
		}
		if len(events) == 0 {
			select {
			case <-sh.wake:
			case <-s.ctx.Done():
				return
			}
			continue
		}
		if !s.deliver(events) {
			return
		}
		s.done(sh, len(events))
	}
}

// deliver posts events until they are taken or refused for good; false: Close gave up.
func (s *Sender) deliver(events []Event) bool {
	raw, err := json.Marshal(body{events})
	if err != nil {
		s.refused.Add(uint64(len(events)))
		s.cfg.Logger.Error("webhook events cannot be encoded", "err", err)
		return true
	}
	for try := 0; ; try++ {
		again, after, err := s.post(raw)
		switch {
		case err == nil:
			s.delivered.Add(uint64(len(events)))
			if s.failing.Swap(false) {
				s.cfg.Logger.Info("the webhook answers again", "url", Shown(s.cfg.URL))
			}
			return true
		case s.ctx.Err() != nil:
			return false
		case !again:
			s.refused.Add(uint64(len(events)))
			s.cfg.Logger.Error("the webhook refuses events for good; they are dropped", "url", Shown(s.cfg.URL), "events", len(events), "err", err)
			return true
		}
		s.failures.Add(1)
		if !s.failing.Swap(true) {
			s.cfg.Logger.Warn("the webhook fails; it is tried again until it answers", "url", Shown(s.cfg.URL), "err", err)
		}
		t := time.NewTimer(max(after, s.backoff(try)))
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return false
		}
	}
}

// backoff is half to all of a time that doubles.
func (s *Sender) backoff(try int) time.Duration {
	d := s.cfg.BackoffMax
	if try < 20 {
		d = min(d, s.cfg.BackoffMin<<try)
	}
	return d/2 + rand.N(d/2+1)
}

// post sends one request. again tells whether it makes sense to repeat it, after at least so long.
func (s *Sender) post(raw []byte) (again bool, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, bytes.NewReader(raw))
	if err != nil {
		return false, 0, err
	}
	sign(req, s.cfg.Secret, raw)
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		return true, 0, withoutURL(err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	_ = resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return false, 0, nil
	}
	err = fmt.Errorf("it answered %s", resp.Status)
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return false, 0, err
	}
	if sec, bad := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); bad == nil {
		after = min(time.Duration(sec)*time.Second, s.cfg.BackoffMax)
	}
	return true, after, err
}

// Close takes no more events, sends what waits until ctx ends, and returns when every goroutine has ended. What was not taken by
// then is lost, and counted.
func (s *Sender) Close(ctx context.Context) error {
	if s == nil || s.cancel == nil {
		return nil
	}
	for _, sh := range s.shards {
		sh.mu.Lock()
		if !sh.closed {
			sh.closed = true
			close(sh.room)
			sh.room = make(chan struct{})
		}
		signal(sh.wake)
		sh.mu.Unlock()
	}
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	s.cancel()
	<-ended
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	if n := s.queued.Swap(0); n > 0 {
		s.lost.Add(uint64(n))
		s.cfg.Logger.Warn("webhook events are lost: the node stops before the webhook took them", "events", n)
	}
	return nil
}

// Stats reads the counters.
func (s *Sender) Stats() Stats {
	if s == nil {
		return Stats{}
	}
	return Stats{
		Queued: int(s.queued.Load()), Delivered: s.delivered.Load(), Overflow: s.overflow.Load(), Refused: s.refused.Load(), Lost: s.lost.Load(),
		Failures: s.failures.Load(), Failing: s.failing.Load(),
	}
}
