package wire

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Encoding is deterministic (RFC 8949 §4.2.1); decoding has the limits that suit bytes from strangers.
var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: 1024,
		MaxMapPairs:      1024,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("wire: bad CBOR options: %v", err)) // a constant of this file is wrong
	}
	return v
}

// Marshal encodes v deterministically. It fails only for types that CBOR cannot hold, which is a programming error.
func Marshal(v any) ([]byte, error) { return encMode.Marshal(v) }

// Unmarshal decodes exactly one value; bytes behind it are an error. The result shares nothing with b.
func Unmarshal(b []byte, v any) error { return decMode.Unmarshal(b, v) }

// UnmarshalFirst decodes one value and returns what follows it, which shares memory with b.
func UnmarshalFirst(b []byte, v any) ([]byte, error) { return decMode.UnmarshalFirst(b, v) }
