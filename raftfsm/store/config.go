package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"imroute/mesh/wire"
)

// Config says how to open a Store. It is read once, by Open.
type Config struct {
	// Dir is the folder for the log and the snapshots. It is created (0700) if it is missing. Required.
	Dir string
	// Local is this node. Required.
	Local wire.NodeID
	// RequireState makes Open refuse a folder without any Raft state: set it when something else (say the list of members in
	// the data folder) shows that this node was a member before, so that lost files are not mistaken for a first start.
	RequireState bool

	// FSM is the state machine. Its Restore is called within Open if there is a snapshot. Required.
	FSM raft.BatchingFSM
	// Layer carries Raft's streams; Dial is called with a node id's text form. Required. The store owns it from the call of
	// Open on: Close closes it, and so does an Open that fails. A Dial must not outlast its time-out.
	Layer raft.StreamLayer
	// Await waits until there is a connection to a member over which Layer would dial it, and returns an error if there can
	// be none, with ctx's end at the latest. It returns at once if there is one. Without it Raft itself tries a member that is
	// away ever more seldom, in the end once in ten seconds, and learns as late that it is back. May be nil.
	Await func(ctx context.Context, member wire.NodeID) error
	// Logger is where Raft's and the store's own messages go. Nil drops them.
	Logger *slog.Logger
	// Fatal is told, once, of the failure after which this member must not go on; it should end the process. It is called
	// from any goroutine, must not call the Store, and if it returns the member is dead until it is closed. Required.
	Fatal func(error)

	// Heartbeat is how long a follower waits for a sign of its leader before it calls an election, and how long a leader
	// that cannot reach a majority remains one. Default (0): 500 ms. At least 5 ms.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes. Default (0): the larger of 500 ms and Heartbeat. At least Heartbeat.
	Election time.Duration
	// CommitInterval bounds how long an idle follower takes to learn of a commit: up to twice this. Default (0): 50 ms.
	CommitInterval time.Duration
	// RPCTimeout bounds one Raft request; transfers of snapshots are given this much per 256 KiB. Default (0): 5 s.
	RPCTimeout time.Duration
	// EnqueueTimeout bounds how long a proposal or a change of membership waits for Raft to take it. Default (0): 2 s.
	EnqueueTimeout time.Duration
	// MaxAppendEntries is how many entries go into one request, one disk write and one batch of the FSM, 1 to 1024.
	// Default (0): 256.
	MaxAppendEntries int

	// SnapshotBytes is how much log is written between snapshots; a snapshot larger than that raises it to its own size, so
	// that no more is written in snapshots than in log. Each node adds up to a half at random, so that they take turns.
	// Default (0): 64 MiB.
	SnapshotBytes int64
	// SnapshotEntries takes a snapshot after so many entries even if they are small. Default (0): 262,144.
	SnapshotEntries uint64
	// TrailingLogs is the least number of entries that stay in the log behind a snapshot for members that lag. Twice the
	// largest distance between two snapshots is kept if that is more. Default (0): 1,024.
	TrailingLogs uint64

	// StoreDeadline is how long one write to the log may take; one that takes longer is fatal, because a leader whose disk
	// hangs would otherwise stay leader. Default (0): 10 s.
	StoreDeadline time.Duration

	// wrapDB lets tests put a failing or hanging disk under the store.
	wrapDB func(db) db
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Heartbeat, 500*time.Millisecond)
	def(&c.Election, max(500*time.Millisecond, c.Heartbeat))
	def(&c.CommitInterval, 50*time.Millisecond)
	def(&c.RPCTimeout, 5*time.Second)
	def(&c.EnqueueTimeout, 2*time.Second)
	def(&c.StoreDeadline, 10*time.Second)
	if c.MaxAppendEntries == 0 {
		c.MaxAppendEntries = 256
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 64 << 20
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 1 << 18
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 1 << 10
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate wants the defaults filled in and names the field at fault.
func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("store: Dir is empty: name the folder for the Raft log")
	case c.Local == 0:
		return errors.New("store: Local is zero: give the node's id")
	case c.FSM == nil:
		return errors.New("store: FSM is missing")
	case c.Layer == nil:
		return errors.New("store: Layer is missing")
	case c.Fatal == nil:
		return errors.New("store: Fatal is missing: it must end the process")
	case c.Heartbeat < 5*time.Millisecond:
		return fmt.Errorf("store: Heartbeat is %v: at least 5ms", c.Heartbeat)
	case c.Election < c.Heartbeat:
		return fmt.Errorf("store: Election (%v) must not be shorter than Heartbeat (%v)", c.Election, c.Heartbeat)
	case c.CommitInterval < time.Millisecond:
		return fmt.Errorf("store: CommitInterval is %v: at least 1ms", c.CommitInterval)
	case c.RPCTimeout < 0:
		return fmt.Errorf("store: RPCTimeout is %v: must be positive", c.RPCTimeout)
	case c.EnqueueTimeout < 0:
		return fmt.Errorf("store: EnqueueTimeout is %v: must be positive", c.EnqueueTimeout)
	case c.StoreDeadline < 0:
		return fmt.Errorf("store: StoreDeadline is %v: must be positive", c.StoreDeadline)
	case c.MaxAppendEntries < 1 || c.MaxAppendEntries > 1024:
		return fmt.Errorf("store: MaxAppendEntries is %d: 1 to 1024", c.MaxAppendEntries)
	case c.SnapshotBytes < 0:
		return fmt.Errorf("store: SnapshotBytes is %d: must be positive", c.SnapshotBytes)
	}
	return nil
}
