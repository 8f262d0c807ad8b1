package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/term"
)

// chatTypingEvery is the shortest time between two announcements that somebody is typing.
const chatTypingEvery = 2 * time.Second

// chatLines is where lines come from and where they are printed: a terminal, in which what others say does not disturb the
// line that is being typed, or plain streams.
type chatLines struct {
	read    func() (string, error) // owned by next once that was called
	restore func()
	reading chan chatLine // owned by next: the read under way; nil: none

	mu     sync.Mutex
	out    func(string) error
	typing func() // nil: nobody wants to know
	typed  time.Time
}

type chatLine struct {
	text string
	err  error
}

// openChatLines begins with plain streams.
func (o *chatOptions) openChatLines() *chatLines {
	r := bufio.NewReader(o.io.In)
	return &chatLines{
		restore: func() {},
		read: func() (string, error) {
			s, err := r.ReadString('\n')
			if s != "" {
				err = nil // a last line without its end counts
			}
			return s, err
		},
		out: func(s string) error { return o.printf("%s\n", s) },
	}
}

// takeTerminal turns to the terminal if there is one, before the first line is read; close gives it back. Ctrl-C is then the
// end of the input, no signal.
func (o *chatOptions) takeTerminal(l *chatLines) error {
	in, inFile := o.io.In.(*os.File)
	_, outFile := o.io.Out.(*os.File)
	if o.asJSON() || !o.io.InTTY || !o.io.OutTTY || !inFile || !outFile || runtime.GOOS == "windows" || o.env("TERM") == "dumb" {
		return nil
	}
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fail("terminal", "pipe the input, or set TERM=dumb", "cannot take over the terminal: %w", err)
	}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{o.io.In, o.io.Out}, "> ")
	if w, h, err := term.GetSize(int(in.Fd())); err == nil {
		_ = t.SetSize(w, h) // it goes on with 80 columns
	}
	t.AutoCompleteCallback = func(string, int, rune) (string, int, bool) {
		l.key()
		return "", 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restore = func() { _ = term.Restore(int(in.Fd()), old) } // nothing can be done about it
	l.read = t.ReadLine
	l.out = func(s string) error {
		_, err := fmt.Fprintf(t, "%s\n", s)
		return outputError(err)
	}
	return nil
}

// print writes one line. It is called by one goroutine at a time.
func (l *chatLines) print(s string) error {
	l.mu.Lock()
	out := l.out
	l.mu.Unlock()
	return out(s)
}

func (l *chatLines) close() { l.restore() }

// onTyping names what to call when keys are pressed, now and then.
func (l *chatLines) onTyping(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.typing = f
}

func (l *chatLines) key() {
	l.mu.Lock()
	f := l.typing
	if f == nil || time.Since(l.typed) < chatTypingEvery {
		f = nil
	} else {
		l.typed = time.Now()
	}
	l.mu.Unlock()
	if f != nil {
		f()
	}
}

// next returns the next line, io.EOF at the end of the input (Ctrl-C and Ctrl-D in a terminal), or ctx's cause. A read
// cannot be interrupted: one that is left over ends with the input or with the process.
func (l *chatLines) next(ctx context.Context) (string, error) {
	if l.reading == nil {
		c := make(chan chatLine, 1)
		l.reading = c
		go func() {
			s, err := l.read()
			if errors.Is(err, term.ErrPasteIndicator) {
				err = nil
			}
			c <- chatLine{s, err}
		}()
	}
	select {
	case got := <-l.reading:
		l.reading = nil
		return got.text, got.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
