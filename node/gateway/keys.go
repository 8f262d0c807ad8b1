package gateway

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms of keys.
const (
	AlgEdDSA = "EdDSA"
	AlgHS256 = "HS256"
)

// minSecret is the shortest HS256 secret in bytes: as long as the hash.
const minSecret = 32

// maxKeyFile bounds a key file in bytes.
const maxKeyFile = 1 << 20

// Key is one key for login tokens. Key holds, by algorithm: EdDSA a public key of 32 bytes, or a private one of 64 (seed and
// public key, as crypto/ed25519 has it), which can sign as well; HS256 a secret of at least 32 bytes.
type Key struct {
	ID  string // kid
	Alg string // AlgEdDSA or AlgHS256
	Key []byte
}

// String leaves the key itself out, so that it cannot end in a log.
func (k Key) String() string { return fmt.Sprintf("%s (%s)", k.ID, k.Alg) }

// GoString is String: %#v must not show the key either.
func (k Key) GoString() string { return k.String() }

func (k Key) validate() error {
	if k.ID == "" || len(k.ID) > 64 {
		return fmt.Errorf("key %.64q: kid must be 1 to 64 bytes long", k.ID)
	}
	switch k.Alg {
	case AlgEdDSA:
		if n := len(k.Key); n != ed25519.PublicKeySize && n != ed25519.PrivateKeySize {
			return fmt.Errorf("key %q: %d bytes: an EdDSA key is %d bytes (public) or %d (private)",
				k.ID, n, ed25519.PublicKeySize, ed25519.PrivateKeySize)
		}
	case AlgHS256:
		if len(k.Key) < minSecret {
			return fmt.Errorf("key %q: %d bytes: an HS256 secret has at least %d", k.ID, len(k.Key), minSecret)
		}
	default:
		return fmt.Errorf("key %q: alg is %.32q: want %s or %s", k.ID, k.Alg, AlgEdDSA, AlgHS256)
	}
	return nil
}

// verifying is the key as the JWT library wants it.
func (k Key) verifying() any {
	if k.Alg == AlgHS256 {
		return k.Key
	}
	if len(k.Key) == ed25519.PrivateKeySize {
		return ed25519.PrivateKey(k.Key).Public()
	}
	return ed25519.PublicKey(k.Key)
}

func (k Key) signing() (any, jwt.SigningMethod, error) {
	if k.Alg == AlgHS256 {
		return k.Key, jwt.SigningMethodHS256, nil
	}
	if len(k.Key) != ed25519.PrivateKeySize {
		return nil, nil, fmt.Errorf("key %q is a public key: signing needs the private one", k.ID)
	}
	return ed25519.PrivateKey(k.Key), jwt.SigningMethodEdDSA, nil
}

// ParseKeys reads a key file, a JSON list:
//
//	[{"kid": "main", "alg": "EdDSA", "key": "base64 of 32 (public) or 64 (private) bytes, or PEM"},
//	 {"kid": "old",  "alg": "HS256", "key": "base64 of at least 32 bytes"}]
//
// Base64 is the standard or the URL alphabet, padded or not; PEM is PKIX "PUBLIC KEY" or PKCS #8 "PRIVATE KEY", for EdDSA only. Unknown
// fields and a kid given twice are errors. Errors name the entry and never show key material.
func ParseKeys(b []byte) ([]Key, error) {
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("key file: %d bytes: at most %d", len(b), maxKeyFile)
	}
	var list []struct {
		KID string `json:"kid"`
		Alg string `json:"alg"`
		Key string `json:"key"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf(`key file: %w: want a JSON list of {"kid", "alg", "key"}`, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("key file: something follows the list")
	}
	if len(list) == 0 {
		return nil, errors.New("key file: the list is empty")
	}
	keys := make([]Key, 0, len(list))
	known := make(map[string]bool, len(list))
	for i, e := range list {
		raw, err := decodeKey(e.Alg, e.Key)
		if err != nil {
			return nil, fmt.Errorf("key file: entry %d (kid %.64q): %w", i+1, e.KID, err)
		}
		k := Key{ID: e.KID, Alg: e.Alg, Key: raw}
		if err := k.validate(); err != nil {
			return nil, fmt.Errorf("key file: entry %d: %w", i+1, err)
		}
		if known[k.ID] {
			return nil, fmt.Errorf("key file: entry %d: kid %q is given twice", i+1, k.ID)
		}
		known[k.ID] = true
		keys = append(keys, k)
	}
	return keys, nil
}

func decodeKey(alg, s string) ([]byte, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, errors.New("key is missing")
	}
	if strings.HasPrefix(s, pemBegins) {
		if alg == AlgHS256 {
			return nil, errNoSecret
		}
		return decodePEM([]byte(s))
	}
	s = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(s), "=")
	b, err := base64.RawStdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("key is neither base64 nor PEM")
	}
	if alg == AlgHS256 && !secret(b) {
		return nil, errNoSecret
	}
	return b, nil
}

const pemBegins = "-----BEGIN"

// errNoSecret: whoever makes tokens by HS256 with what everybody may know lets everybody make them.
var errNoSecret = fmt.Errorf("an %s secret is at least %d random bytes in base64, not a public or private key in PEM or DER: "+
	"make one with `openssl rand -base64 32`, or say alg %s if this is an Ed25519 key", AlgHS256, minSecret, AlgEdDSA)

// secret tells a secret from a key that was encoded once more, or whose PEM lines were left out.
func secret(b []byte) bool {
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte(pemBegins)) {
		return false
	}
	if _, err := x509.ParsePKIXPublicKey(b); err == nil {
		return false
	}
	_, err := x509.ParsePKCS8PrivateKey(b)
	return err != nil
}

func decodePEM(b []byte) ([]byte, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("key is not readable as PEM")
	}
	switch block.Type {
	case "PUBLIC KEY":
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM public key: %w", err)
		}
		if k, ok := k.(ed25519.PublicKey); ok {
			return k, nil
		}
	case "PRIVATE KEY":
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("PEM private key is not readable as PKCS #8")
		}
		if k, ok := k.(ed25519.PrivateKey); ok {
			return k, nil
		}
	}
	return nil, fmt.Errorf("PEM block is a %q, not an Ed25519 key", block.Type)
}
