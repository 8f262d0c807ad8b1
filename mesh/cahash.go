package mesh

import (
	"crypto/sha256"
	"errors"
)

// CAHash is the hash by which tokens name a cluster: of the first certificate in caPEM.
func CAHash(caPEM []byte) (hash [32]byte, err error) {
	certs, err := parseCerts(caPEM)
	if err != nil {
		return hash, err
	}
	if len(certs) == 0 {
		return hash, errors.New("no certificate in the CA's PEM")
	}
	return sha256.Sum256(certs[0].Raw), nil
}
