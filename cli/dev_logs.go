package cli

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// logMux writes the lines of several processes to one stream, each line whole and behind the name of its process.
type logMux struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	next   int // colour of the next process
	styles map[string]int
	width  int // of the longest name
}

// maxLogLine is where longer lines are broken.
const maxLogLine = 64 << 10

func newLogMux(out io.Writer, colour bool) *logMux {
	return &logMux{out: out, colour: colour, styles: map[string]int{}, width: 2}
}

// say writes a line of our own.
func (m *logMux) say(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = fmt.Fprintf(m.out, "dev | "+format+"\n", args...) // logs that nobody can read any more are no reason to stop
}

// prefixed returns a writer for one process. It never fails. Close writes a last line without an end.
func (m *logMux) prefixed(name string) io.WriteCloser {
	m.mu.Lock()
	defer m.mu.Unlock()
	style, ok := m.styles[name]
	if !ok {
		colours := []int{36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94}
		style = colours[m.next%len(colours)]
		m.styles[name] = style
		m.next++
	}
	m.width = max(m.width, len(name))
	prefix := fmt.Sprintf("%-*s | ", m.width, name)
	if m.colour {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", style, prefix)
	}
	return &prefixWriter{mux: m, prefix: prefix}
}

// prefixWriter belongs to the goroutine that copies one process's output.
type prefixWriter struct {
	mux    *logMux
	prefix string
	rest   []byte // of a line whose end has not come yet
}

func (w *prefixWriter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			break
		}
		w.line(append(w.rest, line...))
		w.rest, b = w.rest[:0], rest
	}
	w.rest = append(w.rest, b...)
	for len(w.rest) > maxLogLine {
		w.line(w.rest[:maxLogLine])
		w.rest = append(w.rest[:0], w.rest[maxLogLine:]...)
	}
	return n, nil
}

func (w *prefixWriter) Close() error {
	if len(w.rest) > 0 {
		w.line(w.rest)
		w.rest = nil
	}
	return nil
}

func (w *prefixWriter) line(b []byte) {
	w.mux.mu.Lock()
	defer w.mux.mu.Unlock()
	_, _ = fmt.Fprintf(w.mux.out, "%s%s\n", w.prefix, b) // logs that nobody can read any more are no reason to stop
}
