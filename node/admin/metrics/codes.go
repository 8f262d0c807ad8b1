package metrics

import (
	"sync/atomic"

	"imroute/mesh/wire"
)

// Codes counts by code without a lock or an allocation; the zero value is ready. Its Counts is a source. It may be used
// from many goroutines and must not be copied.
type Codes struct {
	n [maxCode + 1]atomic.Uint64
}

// maxCode is the highest code counted by itself; higher ones count as wire.Unknown.
const maxCode = 255

// Add counts one.
func (c *Codes) Add(code wire.Code) {
	if code > maxCode {
		code = wire.Unknown
	}
	c.n[code].Add(1)
}

// Counts returns what has been counted, codes without a count left out. The map is the caller's.
func (c *Codes) Counts() map[wire.Code]uint64 {
	m := make(map[wire.Code]uint64)
	for i := range c.n {
		if v := c.n[i].Load(); v != 0 {
			m[wire.Code(i)] = v
		}
	}
	return m
}
