package raftfsm

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"imroute/mesh/wire"
)

// APIKey is a back end's key as the cluster keeps it: never the secret, only its hash.
type APIKey struct {
	ID          string     `cbor:"1,keyasint"`
	Hash        []byte     `cbor:"2,keyasint"`
	Scopes      wire.Scope `cbor:"3,keyasint"`
	Name        string     `cbor:"4,keyasint,omitempty"` // a label for people
	Tenant      string     `cbor:"5,keyasint,omitempty"`
	OneTenant   bool       `cbor:"6,keyasint,omitempty"` // it is for Tenant alone, which may be the empty one; else for all
	ExpiresUnix int64      `cbor:"7,keyasint,omitempty"` // seconds; 0 means never
}

// MaxAPIKeys is how many keys are kept at a time, MaxKeyName the bytes of a label.
const (
	MaxAPIKeys = 1000
	MaxKeyName = 100
)

func (c *Command) checkKey() error {
	switch {
	case len(c.Hash) == 0 || len(c.Hash) > maxHash:
		return errors.New("the key's hash is missing or too long")
	case c.Scopes == 0:
		return errors.New("the key has no scope")
	case c.ExpiresUnix < 0:
		return errors.New("the key's expiry is negative")
	case len(c.Name) > MaxKeyName || !utf8.ValidString(c.Name):
		return errors.New("the key's name is too long or no UTF-8")
	case c.Tenant != "" && !c.OneTenant:
		return errors.New("the key names a tenant and is not bound to one")
	}
	if err := (wire.ClientID{Tenant: c.Tenant, ID: "x"}).Validate(); err != nil {
		return err
	}
	return checkTokenID(c.ID)
}

func (t *Table) keyCreate(c *Command) Result {
	k := APIKey{ID: c.ID, Hash: c.Hash, Scopes: c.Scopes, Name: c.Name, Tenant: c.Tenant, OneTenant: c.OneTenant, ExpiresUnix: c.ExpiresUnix}
	old, ok := t.keys[c.ID]
	switch {
	case ok && string(old.Hash) == string(k.Hash) && old.Scopes == k.Scopes && old.Name == k.Name && old.Tenant == k.Tenant &&
		old.OneTenant == k.OneTenant && old.ExpiresUnix == k.ExpiresUnix:
		return Result{Code: wire.OK}
	case ok:
		return refuse(wire.Refused, "there is another API key %q: choose another id", c.ID)
	case len(t.keys) >= MaxAPIKeys:
		return refuse(wire.Refused, "%d API keys exist: revoke some", len(t.keys))
	}
	t.keys[c.ID] = k
	return Result{Code: wire.OK}
}

func (t *Table) keyRevoke(c *Command) Result {
	if _, ok := t.keys[c.ID]; !ok {
		return refuse(wire.Refused, "there is no API key %q", c.ID)
	}
	delete(t.keys, c.ID)
	return Result{Code: wire.OK}
}

func (t *Table) sortedKeys() []APIKey {
	list := make([]APIKey, 0, len(t.keys))
	for _, k := range t.keys {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b APIKey) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// APIKey returns a key (its hash is shared: read only). The table knows no clock: whoever checks a key compares the time.
func (f *FSM) APIKey(id string) (APIKey, bool) {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	k, ok := f.table.keys[id]
	return k, ok
}

// APIKeys lists the API keys by id.
func (f *FSM) APIKeys() []APIKey {
	f.metaMu.RLock()
	defer f.metaMu.RUnlock()
	return f.table.sortedKeys()
}

func (sr *snapshotReader) readKeys(payload []byte) error {
	var list []APIKey
	if err := sr.value(payload, &list); err != nil {
		return err
	}
	for _, k := range list {
		sr.t.keys[k.ID] = k
	}
	return nil
}
