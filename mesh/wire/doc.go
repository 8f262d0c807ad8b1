// Package wire is imroute's vocabulary: identifiers, the client frames, the messages that nodes forward to each other,
// the control calls between nodes, and the one table of result and close codes.
//
// It is a leaf: it imports nothing of imroute, keeps no state and does no I/O. Everything here may be used from several
// goroutines as long as no two of them write the same value.
//
// Compatibility: CBOR maps are keyed by small integers, unknown keys are skipped, keys and codes are only ever added.
package wire
