package cli

import (
	"fmt"
	"time"

	"imroute/cli/bench"
)

// benchProgress is one line on a terminal that is written over and over. One goroutine at a time.
type benchProgress struct {
	*app
	on bool
}

func newBenchProgress(a *app) *benchProgress { return &benchProgress{app: a, on: a.io.ErrTTY} }

func (p *benchProgress) line(text string) {
	if p.on {
		_, _ = fmt.Fprintf(p.io.Err, "\r\x1b[K%s", text) // a line that cannot be shown changes nothing
	}
}

func (p *benchProgress) say(format string, args ...any) { p.line(fmt.Sprintf(format, args...)) }
func (p *benchProgress) clear()                         { p.line("") }

func (p *benchProgress) show(s bench.Progress) {
	text := fmt.Sprintf("%-10s %5.1f s", s.Phase, s.Elapsed.Seconds())
	if s.Of > 0 {
		text += fmt.Sprintf(" of %s", s.Of.Round(100*time.Millisecond))
	}
	if s.Count > 0 {
		text += fmt.Sprintf("   %s", count(float64(s.Count)))
	}
	if s.Interval > 0 && s.Count > 0 {
		text += fmt.Sprintf("   %s/s", count(float64(s.Since)/s.Interval.Seconds()))
	}
	if s.Lost > 0 {
		text += fmt.Sprintf("   %d lost", s.Lost)
	}
	p.line(text)
}
