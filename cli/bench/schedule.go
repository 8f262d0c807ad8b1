package bench

import "time"

// schedule is an open loop: message n is due n/rate after the start, whatever became of the earlier ones.
type schedule struct{ rate float64 }

// at is when message n is due.
func (s schedule) at(n int64) time.Duration { return time.Duration(float64(n) / s.rate * 1e9) }

// due is how many messages are due after elapsed.
func (s schedule) due(elapsed time.Duration) int64 {
	if elapsed < 0 {
		return 0
	}
	n := int64(elapsed.Seconds()*s.rate) + 2 // rounding: one more than there can be
	for n > 0 && s.at(n-1) > elapsed {
		n--
	}
	return n
}

// pairOf says who sends message n to whom: senders take turns, and with spread each goes round the recipients.
func (s schedule) pairOf(n int64, pairs int, spread bool) (from, to int) {
	from = int(n % int64(pairs))
	if !spread {
		return from, from
	}
	return from, int((n + n/int64(pairs)) % int64(pairs))
}

// leastNap keeps the loop from spinning at high rates: what came due meanwhile is sent together.
const leastNap = 200 * time.Microsecond
