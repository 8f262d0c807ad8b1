package nodetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"imroute/mesh/wire"
)

// JournalLine is one event of a node's journal, as package node writes it; what the events mean stands there.
type JournalLine struct {
	At          time.Duration    `json:"at"`
	Event       string           `json:"event"`
	Incarnation wire.Incarnation `json:"incarnation"` // of write and told: that of the open line before
	Client      string           `json:"client,omitempty"`
	Epoch       wire.Epoch       `json:"epoch,omitempty"`
	Session     string           `json:"session,omitempty"`
	Checked     time.Duration    `json:"checked,omitempty"`
	Until       time.Duration    `json:"until,omitempty"`
	IDs         []wire.MessageID `json:"ids,omitempty"`
}

// Events of a journal.
const (
	journalUp    = "up"
	journalLease = "lease"
	journalDrop  = "drop"
	journalOpen  = "open"
	journalFence = "fence"
	journalWrite = "write"
	journalTold  = "told"
)

// readJournal reads a node's journal, in the order of writing. A missing file is an empty one; what follows the last line
// end is still being written, or never was finished.
func readJournal(path string) ([]JournalLine, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseJournal(b)
}

func parseJournal(b []byte) ([]JournalLine, error) {
	var out []JournalLine
	type tenure struct {
		client string
		epoch  wire.Epoch
	}
	opened := map[tenure]wire.Incarnation{}
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			return out, nil
		}
		b = rest
		if len(line) == 0 {
			continue
		}
		var l JournalLine
		if err := json.Unmarshal(line, &l); err != nil {
			if bytes.HasPrefix(b, []byte("\n")) {
				continue // cut short by a kill: what it was to tell of did not happen
			}
			return nil, fmt.Errorf("journal, line %d: %w: %q", n, err, line)
		}
		switch t := (tenure{l.Client, l.Epoch}); l.Event {
		case journalOpen:
			opened[t] = l.Incarnation
		case journalWrite, journalTold:
			l.Incarnation = opened[t]
		}
		out = append(out, l)
	}
}
