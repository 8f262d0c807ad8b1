package node

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
)

// journal writes down what this node did with its right to deliver, for tests that judge it afterwards by its own word
// (package nodetest). A line is in the kernel's hands before the deed it tells of, so a kill loses none. Times are now()'s:
// on Linux the same clock in every process of a machine. nil writes nothing; all methods may be called on it.
type journal struct {
	log *slog.Logger

	mu sync.Mutex
	f  *os.File
}

// journalLine is one event. Which fields are set depends on it:
//
//	up     an incarnation began
//	lease  a renewal sent at Checked was granted: the lease holds until Until
//	drop   the incarnation's lease was given up
//	open   the session of Client was given Epoch and is delivered to from now on
//	fence  nothing is delivered to Client under Epoch any more; its removal is about to be proposed
//	write  the lease was found to hold by a look that began at Checked, and IDs are about to be written
//	told   the same, and Delivered is about to be answered for IDs
//
// The incarnation of write and told is that of the client's epoch, which the line open tells.
type journalLine struct {
	At          time.Duration    `json:"at"`
	Event       string           `json:"event"`
	Incarnation wire.Incarnation `json:"incarnation,omitempty"`
	Client      string           `json:"client,omitempty"`
	Epoch       wire.Epoch       `json:"epoch,omitempty"`
	Session     string           `json:"session,omitempty"`
	Checked     time.Duration    `json:"checked,omitempty"`
	Until       time.Duration    `json:"until,omitempty"`
	IDs         []wire.MessageID `json:"ids,omitempty"`
}

// openJournal appends to path; an empty path gives nil.
func openJournal(path string, log *slog.Logger) (*journal, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if _, err := f.WriteString("\n\n"); err != nil { // a line that a kill cut short ends here, and is known by the empty one behind it
		_ = f.Close()
		return nil, fmt.Errorf("journal: %w", err)
	}
	log.Warn("writing a journal of all deliveries, which is slow and for tests only", "file", path)
	return &journal{log: log, f: f}, nil
}

func (j *journal) write(l journalLine) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	l.At = now() // under the lock: lines stand in the order of their times
	b, err := json.Marshal(l)
	if err == nil {
		_, err = j.f.Write(append(b, '\n'))
	}
	if err != nil {
		j.log.Error("journal", "err", err)
	}
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.f.Close()
}

// gateway is j as the gateway wants it: without a value if there is no journal.
func (j *journal) gateway() gateway.Journal {
	if j == nil {
		return nil
	}
	return deliveries{j}
}

// deliveries is what the gateway tells of its writing.
type deliveries struct{ j *journal }

func (d deliveries) Now() time.Duration { return now() }

func (d deliveries) Writing(s *gateway.Session, checked time.Duration, ids []wire.MessageID) {
	d.line("write", s, checked, ids)
}

func (d deliveries) Told(s *gateway.Session, checked time.Duration, ids []wire.MessageID) {
	d.line("told", s, checked, ids)
}

func (d deliveries) line(event string, s *gateway.Session, checked time.Duration, ids []wire.MessageID) {
	d.j.write(journalLine{Event: event, Client: s.Client().String(), Epoch: s.Epoch(), Session: s.ID().String(), Checked: checked, IDs: ids})
}
