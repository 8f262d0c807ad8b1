package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// Raft's own names of what it keeps in its StableStore.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"
)

// The store's own names.
const (
	keyVote     = "Vote"          // term u64 · candidate
	keySnapshot = "SnapshotIndex" // of the newest snapshot that was finished here
)

// stable is the other half of disk: Raft's term and vote. Every value carries a checksum, for the reason given at seal.
//
// Issue 661 of hashicorp/raft: a vote is stored by two calls, first its term, then its candidate. A crash between them leaves
// the new term beside the former candidate, and the next request of that candidate in this term is taken for a repetition
// and granted, though the vote of this term may have gone to another one: two leaders of one term. So the first call is only
// remembered, and the second writes both as one value in one transaction.
//
// Methods end the calling goroutine after a failure, see failStop. Safe for use by several goroutines.
type stable struct {
	*disk

	mu       sync.Mutex
	voteTerm uint64 // guarded by mu: told, not yet written
}

var _ raft.StableStore = (*stable)(nil)

// Set stores val under key.
func (s *stable) Set(key, val []byte) error {
	name := string(key)
	if name == keyVoteCand {
		s.mu.Lock()
		term := s.voteTerm
		s.mu.Unlock()
		name, val = keyVote, append(binary.BigEndian.AppendUint64(nil, term), val...)
	}
	s.put(name, val)
	return nil
}

// SetUint64 stores val under key.
func (s *stable) SetUint64(key []byte, val uint64) error {
	if string(key) == keyVoteTerm {
		s.mu.Lock()
		s.voteTerm = val
		s.mu.Unlock()
		return nil
	}
	s.put(string(key), binary.BigEndian.AppendUint64(nil, val))
	return nil
}

// Get returns the value of key, or an error whose text is "not found", as Raft wants it.
func (s *stable) Get(key []byte) ([]byte, error) {
	v, err := s.get(string(key))
	return v, s.orHalt(string(key), err)
}

// GetUint64 is Get for numbers.
func (s *stable) GetUint64(key []byte) (uint64, error) {
	v, err := s.getUint64(string(key))
	return v, s.orHalt(string(key), err)
}

func (s *stable) orHalt(key string, err error) error {
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		s.fail.halt(fmt.Errorf("read %s of the Raft store: %w; %s", key, err, wipe))
	}
	return err
}

func (s *stable) put(name string, val []byte) {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(val)), stableSum(name, val))
	b = append(b, val...)
	s.write("store "+name, func() error { return s.db.Set([]byte(name), b) })
}

// get and getUint64 return an error instead of ending the goroutine: they are for the store itself.
func (s *stable) get(name string) ([]byte, error) {
	stored := name
	if name == keyVoteTerm || name == keyVoteCand {
		stored = keyVote
	}
	var b []byte
	err := guard(func() (err error) {
		b, err = s.db.Get([]byte(stored))
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != stableSum(stored, b[4:]) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	b = b[4:]
	if stored == name {
		return b, nil
	}
	if len(b) < 8 {
		return nil, fmt.Errorf("%w: too short", ErrDamaged)
	}
	if name == keyVoteTerm {
		return b[:8], nil
	}
	return b[8:], nil
}

func (s *stable) getUint64(name string) (uint64, error) {
	b, err := s.get(name)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: %d bytes, want 8", ErrDamaged, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// The name is part of the sum, so that a value cannot pass for another one's.
func stableSum(name string, val []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, val)
}
