package gateway

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"imroute/mesh/wire"
)

// claims are those that are read of a token. Others may stand beside them.
type claims struct {
	Tenant string       `json:"tenant,omitempty"`
	Send   patternClaim `json:"send,omitzero"`
	Join   patternClaim `json:"join,omitzero"`
	jwt.RegisteredClaims
}

// UnmarshalJSON takes claims by their exact names only (RFC 7519, section 10.1.1): an issuer who lets its users choose claims of their own
// checks "sub" and not "Sub". A name that is given twice is refused, as that RFC's section 4 asks, since issuer and node could each
// go by another of the two.
func (c *claims) UnmarshalJSON(b []byte) error {
	err := wire.EachMember(b, func(name string, value json.RawMessage) error {
		var to any
		want := "a string"
		switch name {
		case "sub":
			to = &c.Subject
		case "iss":
			to = &c.Issuer
		case "tenant":
			to = &c.Tenant
		case "aud":
			to, want = &c.Audience, "a string or a list of strings"
		case "exp":
			to, want = &c.ExpiresAt, secondsSince
		case "nbf":
			to, want = &c.NotBefore, secondsSince
		case "iat":
			to, want = &c.IssuedAt, secondsSince
		case "send":
			return c.Send.read(name, value)
		case "join":
			return c.Join.read(name, value)
		default:
			return nil
		}
		if err := json.Unmarshal(value, to); err != nil {
			return &plainError{fmt.Sprintf("its claim %s must be %s", name, want), err}
		}
		return nil
	})
	if _, told := errors.AsType[*plainError](err); err != nil && !told {
		return &plainError{"its claims cannot be read: " + err.Error(), nil}
	}
	return err
}

const secondsSince = "a number of seconds since 1970"

// patternClaim is a list of patterns in a token. One that is null is refused: an issuer whose list is empty must not hand out
// tokens that allow everything.
type patternClaim struct{ list *[]string }

func (c patternClaim) IsZero() bool { return c.list == nil }

func (c patternClaim) MarshalJSON() ([]byte, error) {
	return json.Marshal(append([]string{}, *c.list...))
}

func (c *patternClaim) read(name string, value json.RawMessage) error {
	list, err := wire.Strings(value)
	if err != nil {
		return &plainError{"its claim " + name + " must be a list of patterns, each a string: [] allows nothing, leaving it out leaves it to the node", err}
	}
	c.list = &list
	return nil
}

// plainError says in plain words what is wrong, for whoever logs in; detail is for the node's log and may be nil.
type plainError struct {
	text   string
	detail error
}

func (e *plainError) Error() string { return e.text }

func (e *plainError) Unwrap() error { return e.detail }

// refusedToken is why a token that the JWT library refused with err does not count, in plain words. byKey is what the choice of the
// key had against it; nil: nothing.
func refusedToken(err, byKey error) error {
	text := "it cannot be read"
	var plain *plainError
	switch {
	case byKey != nil:
		text = byKey.Error()
	case errors.As(err, &plain):
		text = plain.text
		if plain.detail != nil {
			err = fmt.Errorf("%w: %w", err, plain.detail)
		}
	case errors.Is(err, jwt.ErrTokenMalformed):
		text = "it is not a JWT: three parts in base64url without padding, with dots between them, of which the first two are JSON objects"
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		text = "its signature does not fit: it must be made with " + AlgEdDSA + " or " + AlgHS256 + ", by the key that its kid names"
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		text = "its alg must be " + AlgEdDSA + " or " + AlgHS256
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		text = "exp is missing, it must say when the token ends"
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		text = "it is not valid yet (nbf)"
	}
	return &plainError{"token refused: " + text, err}
}
