package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// The values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// asJSON tells whether programs read the output.
func (a *app) asJSON() bool { return a.output == outputJSON }

// printJSON writes v indented: the whole answer of a command that answers once.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.io.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return outputError(enc.Encode(v))
}

// printLine writes v as one line of JSON: one event of a command that goes on.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.io.Out)
	enc.SetEscapeHTML(false)
	return outputError(enc.Encode(v))
}

// printf writes to the output, for people.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.io.Out, format, args...)
	return outputError(err)
}

// note writes to the error stream, for people only: it stays out of JSON and pipes.
func (a *app) note(format string, args ...any) {
	if !a.asJSON() {
		_, _ = fmt.Fprintf(a.io.Err, format+"\n", args...) // a note that cannot be shown changes nothing
	}
}

func outputError(err error) error {
	if err != nil {
		return fail("output", "", "cannot write the output: %w", err)
	}
	return nil
}

// table lays cells out in columns; the first row is the heading.
type table struct{ rows [][]string }

func newTable(heading ...string) *table { return &table{rows: [][]string{heading}} }

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = printable(fmt.Sprint(c))
		if texts[i] == "" {
			texts[i] = "-"
		}
	}
	t.rows = append(t.rows, texts)
}

func (t *table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range t.rows {
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return outputError(err)
		}
	}
	return outputError(tw.Flush())
}

// fields lays out name and value pairs, one a line.
type fields struct{ rows [][2]string }

func (f *fields) add(name string, value any) {
	if text := printable(fmt.Sprint(value)); text != "" {
		f.rows = append(f.rows, [2]string{name, text})
	}
}

func (f *fields) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range f.rows {
		if _, err := fmt.Fprintf(tw, "%s\t%s\n", row[0]+":", row[1]); err != nil {
			return outputError(err)
		}
	}
	return outputError(tw.Flush())
}

// printable replaces what could steer a terminal: ids and payloads come from strangers.
func printable(s string) string {
	bad := func(r rune) bool {
		return r != '\n' && (unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\u202e' || r == '\u2028' || r == '\u2029')
	}
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case bad(r):
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// short writes a duration with three significant digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
