package gateway

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"imroute/mesh/wire"
)

var errTokenExpired = errors.New("token has expired: log in again with a new one")

// Auth checks login tokens: JWTs signed with EdDSA or HS256 by a key that the token names by `kid`. Which algorithm a key
// is for is fixed by the key, never by the token. Claims: `sub` is the client id, `exp` is required, `tenant` is optional,
// `nbf` is honoured; `send` and `join` are lists of patterns, see Grants. Safe for many goroutines.
type Auth struct {
	keys atomic.Pointer[map[string]Key]
}

// Identity is what a valid token says.
type Identity struct {
	Client  wire.ClientID
	Expires time.Time
	Grants  *Grants // nil: the token does not say
}

type claims struct {
	Tenant string       `json:"tenant,omitempty"`
	Send   patternClaim `json:"send,omitzero"`
	Join   patternClaim `json:"join,omitzero"`
	jwt.RegisteredClaims
}

// NewAuth makes an Auth that trusts keys.
func NewAuth(keys []Key) (*Auth, error) {
	a := &Auth{}
	return a, a.SetKeys(keys)
}

// SetKeys replaces all keys. Sessions that are logged in stay until their token ends. After an error the former keys hold.
func (a *Auth) SetKeys(keys []Key) error {
	if len(keys) == 0 {
		return errors.New("no keys: give at least one, or nobody can log in")
	}
	m := make(map[string]Key, len(keys))
	for _, k := range keys {
		if err := k.validate(); err != nil {
			return err
		}
		if _, twice := m[k.ID]; twice {
			return fmt.Errorf("key %q is given twice: every kid names one key", k.ID)
		}
		m[k.ID] = k
	}
	a.keys.Store(&m)
	return nil
}

// Verify checks a token at time now and that it is for client, which may be empty to accept whoever the token is for.
// Errors say what is wrong without repeating the token.
func (a *Auth) Verify(token, client string, now time.Time) (Identity, error) {
	if token == "" {
		return Identity{}, errors.New("token is missing: this node wants one in login")
	}
	var c claims
	p := jwt.NewParser(jwt.WithValidMethods([]string{AlgEdDSA, AlgHS256}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	_, err := p.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if kid == "" {
			return nil, errors.New("header names no key (kid)")
		}
		k, ok := (*a.keys.Load())[kid]
		if !ok {
			return nil, fmt.Errorf("key %.64q is not known here", kid)
		}
		if t.Method.Alg() != k.Alg {
			return nil, fmt.Errorf("key %q is for %s, the token says %s", kid, k.Alg, t.Method.Alg())
		}
		return k.verifying(), nil
	})
	if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return Identity{}, errTokenExpired
	}
	if err != nil {
		return Identity{}, fmt.Errorf("token refused: %w", err)
	}
	id := Identity{Client: wire.ClientID{Tenant: c.Tenant, ID: c.Subject}, Expires: c.ExpiresAt.Time}
	if c.Subject == "" {
		return Identity{}, errors.New("token refused: sub is missing, it must be the client id")
	}
	if client != "" && client != c.Subject {
		return Identity{}, fmt.Errorf("token refused: it is for %q, not for %q", c.Subject, client)
	}
	if err := id.Client.Validate(); err != nil {
		return Identity{}, fmt.Errorf("token refused: %w", err)
	}
	if id.Grants, err = ParseGrants(c.Send.list, c.Join.list); err != nil {
		return Identity{}, fmt.Errorf("token refused: %w", err)
	}
	return id, nil
}

// SignToken makes a token for a client that is valid from now for ttl. The key must be able to sign: a private EdDSA key or
// an HS256 secret.
func SignToken(key Key, sub, tenant string, ttl time.Duration) (string, error) {
	return signToken(key, sub, tenant, nil, nil, time.Now(), ttl)
}

// SignTokenFor is SignToken for a client that may send to and join only what matches the patterns, see Grants; nil: the
// token does not say.
func SignTokenFor(key Key, sub, tenant string, send, join *[]string, ttl time.Duration) (string, error) {
	return signToken(key, sub, tenant, send, join, time.Now(), ttl)
}

func signToken(key Key, sub, tenant string, send, join *[]string, now time.Time, ttl time.Duration) (string, error) {
	if err := key.validate(); err != nil {
		return "", err
	}
	if _, err := ParseGrants(send, join); err != nil {
		return "", err
	}
	if err := (wire.ClientID{Tenant: tenant, ID: sub}).Validate(); err != nil {
		return "", err
	}
	if ttl < time.Second {
		return "", fmt.Errorf("ttl is %v: want at least a second", ttl)
	}
	k, method, err := key.signing()
	if err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(method, claims{Tenant: tenant, Send: patternClaim{send}, Join: patternClaim{join}, RegisteredClaims: jwt.RegisteredClaims{
		Subject: sub, ExpiresAt: jwt.NewNumericDate(now.Add(ttl)), IssuedAt: jwt.NewNumericDate(now),
	}})
	t.Header["kid"] = key.ID
	token, err := t.SignedString(k)
	if err == nil && len(token) > wire.MaxToken {
		return "", fmt.Errorf("token would be %d bytes long: at most %d fit a login; give fewer or shorter patterns", len(token), wire.MaxToken)
	}
	return token, err
}
