package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/raftfsm"
)

// An API key is KeyPrefix, its id (12 hex digits), "-" and its secret (32 random bytes in URL-safe base64). The table keeps the
// SHA-256 of the secret: it has 256 random bits, so nothing slower is needed to keep it from being guessed.
const (
	keyIDBytes     = 6
	keySecretBytes = 32
)

func newKey() (id, key string, hash []byte) {
	b := make([]byte, keyIDBytes+keySecretBytes)
	_, _ = rand.Read(b) // it never fails: see its documentation
	id = hex.EncodeToString(b[:keyIDBytes])
	secret := base64.RawURLEncoding.EncodeToString(b[keyIDBytes:])
	return id, admin.KeyPrefix + id + "-" + secret, hashSecret(secret)
}

func hashSecret(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// parseKey takes a key apart; it need not be one that exists.
func parseKey(key string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(key, admin.KeyPrefix)
	if !ok {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, "-")
	if !ok || len(id) != hex.EncodedLen(keyIDBytes) || len(secret) != base64.RawURLEncoding.EncodedLen(keySecretBytes) {
		return "", "", false
	}
	return id, secret, true
}

// checkKey is admin.Config.KeyCheck: by the table here, so a node that is cut off learns of a revocation when it is back.
func (n *Node) checkKey(key string) (admin.Key, bool) {
	id, secret, ok := parseKey(key)
	if !ok {
		return admin.Key{}, false
	}
	return matchKey(n.fsm.APIKey, id, secret, time.Now())
}

func matchKey(find func(string) (raftfsm.APIKey, bool), id, secret string, at time.Time) (admin.Key, bool) {
	k, found := find(id)
	if !found {
		k.Hash = make([]byte, sha256.Size) // so that the time taken does not tell which ids exist
	}
	same := subtle.ConstantTimeCompare(hashSecret(secret), k.Hash) == 1
	if !found || !same || k.ExpiresUnix != 0 && at.Unix() >= k.ExpiresUnix {
		return admin.Key{}, false
	}
	return admin.Key{ID: k.ID, Scopes: k.Scopes, Tenant: k.Tenant, OneTenant: k.OneTenant}, true
}

func keyInfo(k raftfsm.APIKey) admin.APIKeyInfo {
	info := admin.APIKeyInfo{ID: k.ID, Name: k.Name, Scopes: k.Scopes.Names()}
	if k.OneTenant {
		info.Tenant = &k.Tenant
	}
	if k.ExpiresUnix != 0 {
		expires := time.Unix(k.ExpiresUnix, 0).UTC()
		info.Expires, info.Expired = &expires, !time.Now().Before(expires)
	}
	return info
}

// CreateAPIKey agrees on a new key's hash.
func (a api) CreateAPIKey(ctx context.Context, q admin.NewAPIKey) (admin.APIKey, error) {
	id, key, hash := newKey()
	k := raftfsm.APIKey{ID: id, Hash: hash, Scopes: q.Scopes, Name: q.Name, Tenant: q.Tenant, OneTenant: q.OneTenant}
	if q.TTL > 0 {
		k.ExpiresUnix = time.Now().Add(q.TTL).Unix()
	}
	_, err := a.propose(ctx, &raftfsm.Command{
		Kind: raftfsm.KindKeyCreate, ID: k.ID, Hash: k.Hash, Scopes: k.Scopes, Name: k.Name, Tenant: k.Tenant, OneTenant: k.OneTenant, ExpiresUnix: k.ExpiresUnix,
	})
	if err != nil {
		return admin.APIKey{}, err
	}
	return admin.APIKey{APIKeyInfo: keyInfo(k), Key: key}, nil
}

// APIKeys lists them as this node's table has them.
func (a api) APIKeys(context.Context) ([]admin.APIKeyInfo, error) {
	out := []admin.APIKeyInfo{}
	for _, k := range a.n.fsm.APIKeys() {
		out = append(out, keyInfo(k))
	}
	return out, nil
}

// RevokeAPIKey ends a key and waits, for revokeWait at most, until every other node that is up refuses it as well.
func (a api) RevokeAPIKey(ctx context.Context, id string) (admin.APIKeyRevoked, error) {
	out := admin.APIKeyRevoked{ID: id, Revoked: true, Unconfirmed: []string{}}
	if err := a.n.refresh(ctx); err != nil {
		return out, err
	}
	if _, ok := a.n.fsm.APIKey(id); !ok {
		return out, admin.Errorf(admin.StatusNotFound, "there is no API key %q", id).WithHint("`imctl api key list` shows them")
	}
	if _, err := a.propose(ctx, &raftfsm.Command{Kind: raftfsm.KindKeyRevoke, ID: id}); err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, revokeWait)
	defer cancel()
	if err := a.n.refresh(ctx); err != nil { // there was a leader a moment ago: what this node has of the members serves as well
		a.n.log.Debug("the members may be those of a moment ago", "err", err)
	}
	nodes := a.n.upNodes()
	gone := make([]bool, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			if err := a.n.askAdmin(ctx, node.ID, opKeyGone, id, nil); err != nil {
				a.n.log.Warn("a node did not confirm that an API key was revoked", "node", node.Name, "key", id, "err", err)
				return
			}
			gone[i] = true
		})
	}
	wg.Wait()
	for i, node := range nodes {
		if !gone[i] {
			out.Unconfirmed = append(out.Unconfirmed, node.Name)
		}
	}
	return out, nil
}

// revokeWait bounds how long a revocation waits for the other nodes.
const revokeWait = 2 * time.Second

// handleKeyGone answers opKeyGone: once the table here has applied all that was acknowledged, that key refused.
func (n *Node) handleKeyGone(ctx context.Context, arg []byte) error {
	var id string
	if err := json.Unmarshal(arg, &id); err != nil {
		return wire.Errorf(wire.BadRequest, "key: %v", err)
	}
	if _, ok := n.fsm.APIKey(id); !ok {
		return nil
	}
	if err := n.refresh(ctx); err != nil {
		return err
	}
	if _, ok := n.fsm.APIKey(id); ok {
		return wire.Errorf(wire.Refused, "there is an API key %q", id)
	}
	return nil
}

// keyReads bounds the linearizable reads that keys which are not in the table here may cause: burst at once, then one in every.
type keyReads struct {
	mu    sync.Mutex
	spent time.Time // guarded by mu: until then the reads had so far are paid for
}

const (
	keyReadsBurst = 32
	keyReadsEvery = 50 * time.Millisecond
)

func (k *keyReads) take(at time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spent.Before(at) {
		k.spent = at
	}
	if k.spent.Sub(at) > (keyReadsBurst-1)*keyReadsEvery {
		return false
	}
	k.spent = k.spent.Add(keyReadsEvery)
	return true
}

// catchUpForKey is admin.Config.KeyCatchUp: the key may have been made at another node a moment ago.
func (n *Node) catchUpForKey(ctx context.Context, key string) bool {
	// Not only for ids that are unknown: the time that a refusal takes does not tell which ids exist.
	if _, _, ok := parseKey(key); !ok || !n.keyReads.take(time.Now()) {
		return false
	}
	return n.refresh(ctx) == nil
}

// upNodes are the members that are not down, by name.
func (n *Node) upNodes() []raftfsm.Node {
	return slices.DeleteFunc(n.fsm.Nodes(), func(v raftfsm.Node) bool { return v.State == raftfsm.Down })
}
