// Package d1http is an example: an HTTP front for programs that cannot hold a connection. Each instance stands before one node
// and logs clients in there through the SDK; clients of different instances reach each other because the nodes do.
//
//	POST /v1/login?clientId=1001                      logs 1001 in at this instance's node
//	GET or POST /v1/send?from=1001&to=1002&text=hi    sends; &ack=none|owner|client, &timeout=2s
//	GET /v1/received?clientId=1002                    takes what has arrived
//
// Answers are JSON; an error is {"code", "error", "hint"}. It has no authentication: put it where only your programs reach it.
package d1http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

const (
	maxClients  = 10_000
	maxReceived = 1000 // messages kept for a client; the oldest go first
)

// front is one instance.
type front struct {
	node string // client address

	mu      sync.Mutex
	clients map[string]*held // guarded by mu
	logins  map[string]bool  // guarded by mu: under way
}

// held is a client that is logged in.
type held struct {
	c *client.Client

	mu       sync.Mutex
	received []message // guarded by mu
}

type message struct {
	From string `json:"from"`
	Text string `json:"text"`
	ID   string `json:"id"`
}

// failure is an answer that is an error.
type failure struct {
	status int
	Code   string `json:"code"`
	Error  string `json:"error"`
	Hint   string `json:"hint"`
}

func missing(name, example string) *failure {
	return &failure{http.StatusBadRequest, "bad_request", "parameter " + name + " is missing", "for example " + example}
}

const sendExample = "/v1/send?from=1001&to=1002&text=hi"

func (f *front) login(ctx context.Context, id string) (any, *failure) {
	if id == "" {
		return nil, missing("clientId", "/v1/login?clientId=1001")
	}
	f.mu.Lock()
	if h := f.clients[id]; h != nil && h.c.Err() == nil {
		f.mu.Unlock()
		return loggedIn(id, h), nil // again: nothing to do
	}
	if len(f.clients)+len(f.logins) >= maxClients || f.logins[id] {
		f.mu.Unlock()
		return nil, &failure{http.StatusTooManyRequests, "overloaded", "too many logins are under way, or this one is", "try again in a moment"}
	}
	f.logins[id] = true
	f.mu.Unlock()
	h := &held{}
	c, err := client.Dial(ctx, client.Config{Addrs: []string{f.node}, Client: id, OnMessage: h.keep})
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.logins, id)
	if err != nil {
		return nil, &failure{http.StatusBadGateway, "login_failed", err.Error(), "is the node at " + f.node + " up?"}
	}
	h.c = c
	f.clients[id] = h
	return loggedIn(id, h), nil
}

func loggedIn(id string, h *held) any {
	s := h.c.State()
	return map[string]any{"clientId": id, "node": s.Node}
}

func (h *held) keep(m client.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.received = append(h.received, message{m.From, string(m.Payload), m.ID.String()})
	if over := len(h.received) - maxReceived; over > 0 {
		h.received = h.received[over:]
	}
}

func (f *front) find(id string) (*held, *failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.clients[id]; h != nil {
		return h, nil
	}
	return nil, &failure{http.StatusNotFound, "not_found", "client " + id + " has not logged in here", "/v1/login?clientId=" + id}
}

func (f *front) send(ctx context.Context, r *http.Request) (any, *failure) {
	from, to := r.FormValue("from"), r.FormValue("to")
	if from == "" {
		return nil, missing("from", sendExample)
	}
	if to == "" {
		return nil, missing("to", sendExample)
	}
	ack, ok := map[string]wire.AckMode{"none": wire.AckNone, "": wire.AckOwner, "owner": wire.AckOwner, "client": wire.AckClient}[r.FormValue("ack")]
	if !ok {
		return nil, &failure{http.StatusBadRequest, "bad_request", "ack is " + r.FormValue("ack"), "none, owner or client"}
	}
	timeout := 5 * time.Second
	if s := r.FormValue("timeout"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < time.Millisecond || d > time.Minute {
			return nil, &failure{http.StatusBadRequest, "bad_request", "timeout is " + s, "1ms to 1m"}
		}
		timeout = d
	}
	h, bad := f.find(from)
	if bad != nil {
		return nil, bad
	}
	res, err := h.c.Send(ctx, to, []byte(r.FormValue("text")), client.WithAck(ack), client.WithTimeout(timeout))
	if err != nil && res.Code == wire.None {
		return nil, &failure{http.StatusServiceUnavailable, "unavailable", err.Error(), "try again in a moment"}
	}
	result := res.Code.String()
	if ack == wire.AckNone {
		result = "accepted"
	}
	out := map[string]any{"result": result, "id": res.ID.String(), "owner": res.Owner}
	switch {
	case ack == wire.AckNone || res.Code == wire.Delivered:
		return out, nil
	case res.Code == wire.Timeout || res.Code == wire.Unknown:
		return nil, &failure{http.StatusGatewayTimeout, result, "no acknowledgement of " + to + " within " + timeout.String(), "it may have arrived all the same"}
	}
	return nil, &failure{http.StatusBadGateway, result, "the message to " + to + " was not delivered", "is it online? imctl route get " + to}
}

func (f *front) receive(id string) (any, *failure) {
	if id == "" {
		return nil, missing("clientId", "/v1/received?clientId=1002")
	}
	h, bad := f.find(id)
	if bad != nil {
		return nil, bad
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.received
	h.received = nil
	if got == nil {
		got = []message{}
	}
	return map[string]any{"messages": got}, nil
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	var out any
	var bad *failure
	switch key := r.Method + " " + r.URL.Path; key {
	case "POST /v1/login":
		out, bad = f.login(ctx, r.FormValue("clientId"))
	case "GET /v1/send", "POST /v1/send":
		out, bad = f.send(ctx, r)
	case "GET /v1/received":
		out, bad = f.receive(r.FormValue("clientId"))
	default:
		bad = &failure{http.StatusNotFound, "not_found", "there is no " + key, "POST /v1/login, GET or POST /v1/send, GET /v1/received"}
	}
	w.Header().Set("Content-Type", "application/json")
	if bad != nil {
		w.WriteHeader(bad.status)
		out = bad
	}
	_ = json.NewEncoder(w).Encode(out) // a caller that is gone needs no answer
}

func (f *front) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	var wg sync.WaitGroup
	for _, h := range f.clients {
		wg.Go(func() { _ = h.c.Close(ctx) })
	}
	wg.Wait()
}

// Main runs one instance, "d1http LISTEN NODE", until it is interrupted, and returns the exit code.
func Main(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: d1http LISTEN NODE (HOST:PORT each; NODE is a node's client address)")
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	f := &front{node: args[1], clients: map[string]*held{}, logins: map[string]bool{}}
	defer f.close()
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	fmt.Println("listening on", ln.Addr())
	<-ctx.Done()
	done, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = srv.Shutdown(done)
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
