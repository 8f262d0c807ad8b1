package datadir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"imroute/mesh/wire"
	"imroute/mesh/wire/mutate"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The small files are JSON with a checksum over the content as it stands, so that a flipped digit is noticed and a person
// can still read them: {"crc32c":"…","data":{…}}.
type checked struct {
	Sum  string          `json:"crc32c"`
	Data json.RawMessage `json:"data"`
}

func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(checked{sum(data), data})
	return append(b, '\n'), err
}

func sum(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

// decode checks and reads what encode made.
func decode(b []byte, v any) error {
	var c checked
	if err := strict(b, &c); err != nil {
		return err
	}
	if c.Sum != sum(c.Data) {
		return errors.New("its checksum is wrong")
	}
	return json.Unmarshal(c.Data, v) // unknown fields are a newer version's
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows behind its end")
	}
	return nil
}

// maxFile bounds what is read of a small file.
const maxFile = 4 << 20

// read reads a small file; os.ErrNotExist if it is not there.
func read(path string, v any) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Size() > maxFile {
		return fmt.Errorf("%s is %w: %d bytes are too many", path, ErrDamaged, st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := decode(b, v); err != nil {
		return fmt.Errorf("%s is %w: %w", path, ErrDamaged, err)
	}
	return nil
}

// rejoin is what a person can do about a folder that has forgotten who it is.
const rejoin = "restore the file from a copy, or remove this node from the cluster, empty the folder and join again as a new member"

type nodeJSON struct {
	Version  int         `json:"version"`
	ID       wire.NodeID `json:"id"`
	ResetKey []byte      `json:"reset_key"`
}

const nodeVersion = 1

// ID is the node's id, for ever.
func (d *Dir) ID() wire.NodeID { return d.id }

// ResetKey is the node's key for QUIC's stateless resets: with the same one after a restart, peers learn at once that
// their connections are gone.
func (d *Dir) ResetKey() [32]byte { return d.resetKey }

type bootJSON struct {
	Boot wire.Boot `json:"boot"`
}

func (d *Dir) readBoot() (wire.Boot, error) {
	var b bootJSON
	path := filepath.Join(d.path, bootFile)
	switch err := read(path, &b); {
	case errors.Is(err, os.ErrNotExist):
		// A counter that began anew would pass this start for an earlier one.
		return 0, fmt.Errorf("%w: %s is missing; %s", ErrIncomplete, path, rejoin)
	case errors.Is(err, ErrDamaged):
		return 0, fmt.Errorf("%w; %s", err, rejoin)
	case err != nil:
		return 0, err
	}
	return b.Boot, nil
}

// LastBoot is the boot returned last, by whichever process; 0 if there was none.
func (d *Dir) LastBoot() wire.Boot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boot
}

// Boot raises the boot counter by one and returns it, once the new value survives a power loss. A boot that was returned is
// never returned again.
func (d *Dir) Boot() (wire.Boot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.boot + 1
	if mutate.BootReused {
		next = max(d.boot, 1)
	}
	b, err := encode(bootJSON{next})
	if err != nil {
		return 0, err
	}
	if err := d.writeLocked(bootFile, b); err != nil {
		return 0, err
	}
	d.boot = next
	return next, nil
}

// Member is a peer as it was last seen.
type Member struct {
	ID   wire.NodeID `json:"id"`
	Name string      `json:"name"`
	Mesh string      `json:"mesh"` // advertised address, host:port
}

// Members returns what SetMembers was last told, nil before that. It is how a restarted node finds its peers before Raft has
// replayed; it may be out of date.
func (d *Dir) Members() ([]Member, error) {
	var m []Member
	path := filepath.Join(d.path, membersFile)
	switch err := read(path, &m); {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case errors.Is(err, ErrDamaged):
		return nil, fmt.Errorf("%w; delete it and start the node with --name, --join and the address of any member", err)
	case err != nil:
		return nil, err
	}
	return m, nil
}

// LostMembers tells that there is no list of members, not even an empty one. Somebody deleted it if this node has been a
// member.
func (d *Dir) LostMembers() bool {
	_, err := os.Stat(filepath.Join(d.path, membersFile))
	return errors.Is(err, os.ErrNotExist)
}

// SetMembers replaces the list of members.
func (d *Dir) SetMembers(m []Member) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	return d.write(membersFile, b)
}
