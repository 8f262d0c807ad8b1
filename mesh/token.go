package mesh

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

const (
	tokenPrefix    = "imj1-"
	tokenIDBytes   = 6
	tokenSecret    = 20
	tokenCRCBytes  = 4
	tokenBodyBytes = tokenIDBytes + tokenSecret + 32 + tokenCRCBytes
)

// Lower case without padding: one word that survives terminals, chats and being read aloud.
var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// Token lets a node join: it proves to the cluster that the joiner may, and to the joiner that it is the right cluster.
type Token struct {
	ID     string // twelve hex digits; names the token in lists and when it is revoked; not secret
	Secret []byte
	CAHash [32]byte
}

// NewToken makes a random token for the cluster whose CA has that hash.
func NewToken(caHash [32]byte) Token {
	var b [tokenIDBytes + tokenSecret]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return Token{hex.EncodeToString(b[:tokenIDBytes]), append([]byte(nil), b[tokenIDBytes:]...), caHash}
}

// String is the token as one word to copy and paste. It is secret.
func (t Token) String() string {
	id, err := hex.DecodeString(t.ID)
	if err != nil || len(id) != tokenIDBytes || len(t.Secret) != tokenSecret {
		return "invalid-token"
	}
	b := make([]byte, 0, tokenBodyBytes)
	b = append(b, id...)
	b = append(b, t.Secret...)
	b = append(b, t.CAHash[:]...)
	sum := crc32.Checksum(b, crcTable)
	b = append(b, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
	return tokenPrefix + tokenEncoding.EncodeToString(b)
}

// ParseToken reads what String wrote, forgiving case and surrounding space. A typo is told from a token of another kind.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	body, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("not a join token: it begins with %q; make one with `imctl cluster token create`", tokenPrefix)
	}
	const want = (tokenBodyBytes*8 + 4) / 5
	if len(body) != want {
		return Token{}, fmt.Errorf("join token is %d characters long, want %d: copy all of it", len(s), want+len(tokenPrefix))
	}
	b, err := tokenEncoding.DecodeString(body)
	if err != nil {
		return Token{}, fmt.Errorf("join token has a typo: %w", err)
	}
	// The last character holds bits that decoding ignores: only one spelling of a token is right.
	if tokenEncoding.EncodeToString(b) != body {
		return Token{}, errors.New("join token has a typo in its last character: copy it again")
	}
	n := tokenBodyBytes - tokenCRCBytes
	sum := uint32(b[n])<<24 | uint32(b[n+1])<<16 | uint32(b[n+2])<<8 | uint32(b[n+3])
	if crc32.Checksum(b[:n], crcTable) != sum {
		return Token{}, errors.New("join token has a typo (its checksum is wrong): copy it again")
	}
	t := Token{ID: hex.EncodeToString(b[:tokenIDBytes]), Secret: append([]byte(nil), b[tokenIDBytes:tokenIDBytes+tokenSecret]...)}
	copy(t.CAHash[:], b[tokenIDBytes+tokenSecret:])
	return t, nil
}

// Hash is what the cluster stores of a token instead of its secret.
func (t Token) Hash() []byte { return TokenHash(t.ID, t.Secret) }

// TokenHash is Hash for the parts that a JoinRequest carries.
func TokenHash(id string, secret []byte) []byte {
	h := sha256.New()
	h.Write([]byte("imroute join token\x00"))
	h.Write([]byte(id))
	h.Write([]byte{0})
	h.Write(secret)
	return h.Sum(nil)
}

// CheckToken compares what a joiner sent with a stored Hash in constant time.
func CheckToken(id string, secret, stored []byte) bool {
	return subtle.ConstantTimeCompare(TokenHash(id, secret), stored) == 1
}

// Check compares the token with a stored Hash in constant time.
func (t Token) Check(stored []byte) bool { return CheckToken(t.ID, t.Secret, stored) }
