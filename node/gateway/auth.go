package gateway

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"imroute/mesh/wire"
)

var errTokenExpired = errors.New("token has expired: log in again with a new one")

// Auth checks login tokens: JWTs signed with EdDSA or HS256 by a key that the token names by `kid`. Which algorithm a key
// is for is fixed by the key, never by the token. Claims: `sub` is the client id, `exp` is required, `tenant` is optional,
// `nbf` is honoured; `send` and `join` are lists of patterns, see Grants; `iss` and `aud` must be those of Issued, if that says
// any. Names of claims count exactly as they are written here. Safe for many goroutines.
type Auth struct {
	issued Issued
	keys   atomic.Pointer[map[string]Key]
}

// Issued says by whom and for whom tokens are made. An empty string says nothing about it.
type Issued struct {
	Issuer   string // claim iss
	Audience string // one of the claim aud
}

func (i Issued) check(c *claims) error {
	switch {
	case i.Issuer != "" && c.Issuer != i.Issuer:
		return fmt.Errorf("token refused: it must come from the issuer (iss) %.200q", i.Issuer)
	case i.Audience != "" && !slices.Contains(c.Audience, i.Audience):
		return fmt.Errorf("token refused: it must be for the audience (aud) %.200q", i.Audience)
	}
	return nil
}

// Identity is what a valid token says.
type Identity struct {
	Client  wire.ClientID
	Expires time.Time
	Grants  *Grants // nil: the token does not say
}

// NewAuth makes an Auth that trusts tokens by keys which are issued as the second parameter says.
func NewAuth(keys []Key, issued Issued) (*Auth, error) {
	a := &Auth{issued: issued}
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
// Errors say what is wrong in plain words, without repeating the token; what they wrap is for a log.
func (a *Auth) Verify(token, client string, now time.Time) (Identity, error) {
	if token == "" {
		return Identity{}, errors.New("token is missing: this node wants one in login")
	}
	var c claims
	p := jwt.NewParser(jwt.WithValidMethods([]string{AlgEdDSA, AlgHS256}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	var byKey error
	_, err := p.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		var key any
		key, byKey = a.keyOf(t)
		return key, byKey
	})
	if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return Identity{}, errTokenExpired
	}
	if err != nil {
		return Identity{}, refusedToken(err, byKey)
	}
	if err := a.issued.check(&c); err != nil {
		return Identity{}, err
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

// keyOf is the key that a token must be signed by.
func (a *Auth) keyOf(t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok { // RFC 7515: whoever does not understand all that it names must refuse the token
		return nil, errors.New("its header has critical extensions (crit), of which this node knows none")
	}
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
}

// SignToken makes a token for a client that is valid from now for ttl. The key must be able to sign: a private EdDSA key or
// an HS256 secret.
func SignToken(key Key, sub, tenant string, ttl time.Duration) (string, error) {
	return signToken(key, Issued{}, sub, tenant, nil, nil, time.Now(), ttl)
}

// SignTokenFor is SignToken, with the claims of issued, for a client that may send to and join only what matches the patterns, see
// Grants; nil: the token does not say.
func SignTokenFor(key Key, issued Issued, sub, tenant string, send, join *[]string, ttl time.Duration) (string, error) {
	return signToken(key, issued, sub, tenant, send, join, time.Now(), ttl)
}

func signToken(key Key, issued Issued, sub, tenant string, send, join *[]string, now time.Time, ttl time.Duration) (string, error) {
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
	c := claims{Tenant: tenant, Send: patternClaim{send}, Join: patternClaim{join}, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issued.Issuer, Subject: sub, ExpiresAt: jwt.NewNumericDate(now.Add(ttl)), IssuedAt: jwt.NewNumericDate(now),
	}}
	if issued.Audience != "" {
		c.Audience = jwt.ClaimStrings{issued.Audience}
	}
	t := jwt.NewWithClaims(method, c)
	t.Header["kid"] = key.ID
	token, err := t.SignedString(k)
	if err == nil && len(token) > wire.MaxToken {
		return "", fmt.Errorf("token would be %d bytes long: at most %d fit a login; give fewer or shorter patterns", len(token), wire.MaxToken)
	}
	return token, err
}
