package bench

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// subBuckets is how many buckets one power of two has: a quantile is off by less than 1/64.
const subBuckets = 64

// Histogram counts durations. The zero value is empty. All methods may be called from several goroutines.
type Histogram struct {
	n [(64 - 6) * subBuckets]atomic.Uint64
}

// bucket is v itself below 2*subBuckets; above, the leading bits of v select it.
func bucket(v uint64) int {
	if v < 2*subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - bits.Len64(2*subBuckets-1)
	return shift*subBuckets + int(v>>shift)
}

// middle is the value that stands for all in a bucket.
func middle(i int) float64 {
	if i < 2*subBuckets {
		return float64(i)
	}
	shift := i/subBuckets - 1
	return float64(uint64(i-shift*subBuckets)<<shift) + float64(uint64(1)<<shift)/2
}

// Add counts d; one below 0 counts as 0.
func (h *Histogram) Add(d time.Duration) { h.n[bucket(uint64(max(d, 0)))].Add(1) }

// Merge adds everything o counted.
func (h *Histogram) Merge(o *Histogram) {
	for i := range o.n {
		if c := o.n[i].Load(); c > 0 {
			h.n[i].Add(c)
		}
	}
}

// Count is how many were added.
func (h *Histogram) Count() (total uint64) {
	for i := range h.n {
		total += h.n[i].Load()
	}
	return total
}

// Quantile is the smallest duration that at least q (0 to 1) of all did not exceed, in microseconds; 0 if there are none.
func (h *Histogram) Quantile(q float64) float64 {
	want := max(uint64(math.Ceil(q*float64(h.Count()))), 1)
	var seen uint64
	for i := range h.n {
		if seen += h.n[i].Load(); seen >= want {
			return middle(i) / 1e3
		}
	}
	return 0
}

// stripes are histograms that many goroutines add to without meeting each other much, in memory that does not grow with
// their number.
type stripes struct{ h []Histogram }

func newStripes(goroutines int) *stripes {
	return &stripes{make([]Histogram, min(max(goroutines, 1), 16))}
}

func (s *stripes) add(goroutine int, d time.Duration) { s.h[goroutine%len(s.h)].Add(d) }

func (s *stripes) sum() *Histogram {
	sum := new(Histogram)
	for i := range s.h {
		sum.Merge(&s.h[i])
	}
	return sum
}
