package nodetest

import (
	"slices"
	"sync"
	"time"

	"imroute/mesh/wire"
)

// History is what a workload did and saw, and what was done to the processes. Times are Now's. It may be added to by many
// goroutines; checkers read a snapshot.
type History struct {
	now func() time.Duration // Now, or virtual time

	mu       sync.Mutex
	sdks     []*SDK
	sends    []*Send
	received []Received
	lookups  []Lookup
	kicks    []Kick
	done     []Process
	refused  []Refusal
	errands  []Errand
	orderly  []Span
}

// SDK is one client.Client, from its dialling to its end.
type SDK struct {
	Number   int
	Client   string
	Instance uint64 // 0: the first login never succeeded
	Dial     time.Duration
	States   []SDKState
	Closed   time.Duration // when the workload closed it; 0: not yet
}

// SDKState is what an SDK said of its connection.
type SDKState struct {
	At        time.Duration
	Connected bool
	Epoch     wire.Epoch
	Node      string
	Code      wire.Code // why it is not connected
}

// Send is one message. Return is 0 as long as its outcome is open, and for ever with AckNone.
type Send struct {
	SDK          int
	From, To     string
	ID           wire.MessageID
	Ack          wire.AckMode
	Timeout      time.Duration
	Call, Return time.Duration
	Code         wire.Code
	Owner, Text  string
	GivenUp      bool // its SDK was closed before there was an outcome
}

// Refusal is what a sender heard of a message without acknowledgement.
type Refusal struct {
	ID   wire.MessageID
	At   time.Duration
	Code wire.Code
}

// Received is one message that an SDK handed to its application, before it was acknowledged.
type Received struct {
	SDK   int
	To    string
	From  string
	ID    wire.MessageID
	Epoch wire.Epoch
	At    time.Duration
}

// Lookup is a linearizable look-up that was answered.
type Lookup struct {
	Client       string
	Asked        string // node
	Call, Return time.Duration
	Epoch        wire.Epoch // 0: no route
	Owner        string
}

// Kick is one that was answered with success.
type Kick struct {
	Client       string
	Epoch        wire.Epoch
	Call, Return time.Duration
}

// What is done to processes.
const (
	ProcessStart  = "start"
	ProcessKill   = "kill"
	ProcessStop   = "stop"
	ProcessPause  = "pause"
	ProcessResume = "resume"
)

// Process is something done to a process, noted right before it is.
type Process struct {
	Node, What string
	At         time.Duration
}

// Snapshot is a History that does not change any more.
type Snapshot struct {
	SDKs      []SDK
	Sends     []Send
	Received  []Received // of one SDK in the order in which it handed them out
	Lookups   []Lookup
	Kicks     []Kick
	Processes []Process
	Refused   []Refusal
	Errands   []Errand
	Orderly   []Span // rising
	Ended     time.Duration
}

func newHistory() *History { return &History{now: Now} }

func (h *History) snapshot() Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Snapshot{
		Received: slices.Clone(h.received), Lookups: slices.Clone(h.lookups), Kicks: slices.Clone(h.kicks),
		Processes: slices.Clone(h.done), Refused: slices.Clone(h.refused),
		Errands: slices.Clone(h.errands), Orderly: slices.Clone(h.orderly), Ended: h.now(),
	}
	for _, v := range h.sdks {
		c := *v
		c.States = slices.Clone(v.States)
		s.SDKs = append(s.SDKs, c)
	}
	for _, v := range h.sends {
		s.Sends = append(s.Sends, *v)
	}
	return s
}

func (h *History) process(node, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, Process{node, what, h.now()})
}

func (h *History) newSDK(client string) *SDK {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &SDK{Number: len(h.sdks), Client: client, Dial: h.now()}
	h.sdks = append(h.sdks, s)
	return s
}

func (h *History) state(s *SDK, st SDKState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st.At = h.now()
	s.States = append(s.States, st)
}

func (h *History) named(s *SDK, instance uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Instance = instance
}

func (h *History) sending(s *Send) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Call = h.now()
	h.sends = append(h.sends, s)
}

// sent names a message; ok false: it was not taken, and is forgotten.
func (h *History) sent(s *Send, id wire.MessageID, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ok {
		s.ID = id
		return
	}
	for i := len(h.sends) - 1; i >= 0; i-- {
		if h.sends[i] == s {
			h.sends = slices.Delete(h.sends, i, i+1)
			return
		}
	}
}

func (h *History) result(s *Send, id wire.MessageID, code wire.Code, owner, text string, givenUp bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.ID, s.Return, s.Code, s.Owner, s.Text, s.GivenUp = id, h.now(), code, owner, text, givenUp
}

func (h *History) refusal(id wire.MessageID, code wire.Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused = append(h.refused, Refusal{id, h.now(), code})
}

func (h *History) errand(e Errand) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errands = append(h.errands, e)
}

func (h *History) wasOrderly(s Span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.orderly = append(h.orderly, s)
}

func (h *History) receive(r Received) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.At = h.now()
	h.received = append(h.received, r)
}

func (h *History) lookedUp(l Lookup) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lookups = append(h.lookups, l)
}

func (h *History) kicked(k Kick) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kicks = append(h.kicks, k)
}

// closed notes that the workload is done with an SDK.
func (h *History) closed(s *SDK) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Closed = h.now()
}

// clients counts, by node, the SDKs that are connected at this moment, as far as they know.
func (h *History) clients() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]int{}
	for _, s := range h.sdks {
		if n := len(s.States); n > 0 && s.Closed == 0 && s.States[n-1].Connected {
			out[s.States[n-1].Node]++
		}
	}
	return out
}

// served is when each client was first reached by a message sent at or after since; clients never reached are missing.
func (h *History) served(since time.Duration) map[string]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]time.Duration{}
	for _, s := range h.sends {
		if s.Code == wire.Delivered && s.Call >= since {
			if at, ok := out[s.To]; !ok || s.Return < at {
				out[s.To] = s.Return
			}
		}
	}
	return out
}
