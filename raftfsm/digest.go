package raftfsm

import "math/bits"

// digest is a fast 64-bit hash for comparing tables and batches: against mistakes, not against somebody who looks for
// collisions. It is the same on every node and in every version.
type digest uint64

const (
	digestSeed = 0x9e3779b97f4a7c15
	digestMul  = 0xd6e8feb86659fd93
)

func newDigest() digest { return digestSeed }

func (d *digest) number(x uint64) {
	hi, lo := bits.Mul64(uint64(*d)^x, digestMul)
	*d = digest(bits.RotateLeft64(lo^hi, 29) + digestSeed)
}

func (d *digest) text(s string) {
	d.number(uint64(len(s)))
	for len(s) >= 8 {
		d.number(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
		s = s[8:]
	}
	var x uint64
	for i := range len(s) {
		x |= uint64(s[i]) << (8 * i)
	}
	d.number(x)
}

func (d *digest) sum() uint64 {
	x := uint64(*d)
	x ^= x >> 32
	x *= digestMul
	return x ^ x>>32
}
