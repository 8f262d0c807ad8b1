package discover

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

const (
	// MinSecret is the least number of characters of a secret. Whoever listens on the LAN can try secrets offline at the
	// speed of Argon2id: a word from a dictionary would not last.
	MinSecret = 16
	maxSecret = 1024
	// MaxName is the longest cluster name in bytes.
	MaxName = 64

	tokenIDBytes     = 6  // as package mesh has them
	tokenSecretBytes = 20 //
)

// Key is what a node needs to know of the secret. It is immutable and as secret as the secret itself.
type Key struct {
	cluster  string
	master   [32]byte
	announce []byte
	token    []byte
}

// CheckCluster tells what is wrong with a cluster name.
func CheckCluster(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return fmt.Errorf("cluster name of %d bytes: want 1 to %d bytes of UTF-8", len(name), MaxName)
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f {
			return fmt.Errorf("cluster name %q: want no spaces or control characters", name)
		}
	}
	return nil
}

// CheckSecret tells what is wrong with a secret.
func CheckSecret(secret string) error {
	if n := utf8.RuneCountInString(secret); n < MinSecret || len(secret) > maxSecret {
		return fmt.Errorf("the secret has %d characters: want at least %d (at most %d bytes), because whoever listens on the network can try secrets for as long as he likes; a good one comes from `openssl rand -base64 24`",
			n, MinSecret, maxSecret)
	}
	return nil
}

// NewKey derives the key of a cluster's name and secret. It takes about a tenth of a second and 64 MiB, on purpose.
func NewKey(cluster, secret string) (*Key, error) {
	if err := errors.Join(CheckCluster(cluster), CheckSecret(secret)); err != nil {
		return nil, err
	}
	// The salt must be the same everywhere before anybody has met: the name is all there is.
	salt := sha256.Sum256([]byte("imroute discovery\x001\x00" + cluster))
	return makeKey(cluster, [32]byte(argon2.IDKey([]byte(secret), salt[:], 3, 64<<10, 4, 32)))
}

func makeKey(cluster string, master [32]byte) (*Key, error) {
	k := &Key{cluster: cluster, master: master}
	var err error
	if k.announce, err = hkdf.Expand(sha256.New, master[:], "imroute announcement", 32); err != nil {
		return nil, err
	}
	if k.token, err = hkdf.Expand(sha256.New, master[:], "imroute join token", tokenIDBytes+tokenSecretBytes); err != nil {
		return nil, err
	}
	return k, nil
}

// Cluster is the name that the key is for.
func (k *Key) Cluster() string { return k.cluster }

// Token is the id (hex) and the secret of the join token by which nodes that know the secret let each other in. The secret
// belongs to the key: read only.
func (k *Key) Token() (id string, secret []byte) {
	return hex.EncodeToString(k.token[:tokenIDBytes]), k.token[tokenIDBytes:]
}

// Admits tells in constant time whether that is the key's join token. A nil key admits nobody.
func (k *Key) Admits(id string, secret []byte) bool {
	if k == nil {
		return false
	}
	wantID, want := k.Token()
	return id == wantID && hmac.Equal(secret, want)
}

// Equal tells whether two keys are of the same name and secret.
func (k *Key) Equal(other *Key) bool {
	return other != nil && k.cluster == other.cluster && hmac.Equal(k.master[:], other.master[:])
}

type keyJSON struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"`
	Key     []byte `json:"key"`
}

// Marshal is the key as a file holds it; keep that at mode 0600.
func (k *Key) Marshal() []byte {
	b, _ := json.Marshal(keyJSON{1, k.cluster, k.master[:]}) // cannot fail
	return append(b, '\n')
}

// ParseKey reads what Marshal wrote.
func ParseKey(b []byte) (*Key, error) {
	var f keyJSON
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("discovery key: %w", err)
	}
	if f.Version != 1 || len(f.Key) != 32 {
		return nil, errors.New("discovery key: not one that this version can read")
	}
	if err := CheckCluster(f.Cluster); err != nil {
		return nil, fmt.Errorf("discovery key: %w", err)
	}
	return makeKey(f.Cluster, [32]byte(f.Key))
}
