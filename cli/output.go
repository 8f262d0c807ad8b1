package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
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
		_, _ = fmt.Fprintln(a.io.Err, printableLines(fmt.Sprintf(format, args...), "  ")) // a note that cannot be shown changes nothing
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

// unprintable tells what could steer a terminal or end a line, and what changes the order in which a line is read.
func unprintable(r rune) bool {
	switch {
	case unicode.IsControl(r), r == unicode.ReplacementChar, r == '\u2028', r == '\u2029':
		return true
	case r == '\u061c', r == '\u200e', r == '\u200f', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
		return true
	}
	return false
}

// printable makes one line of s in which nothing can steer a terminal: ids and payloads come from strangers, and none of theirs may
// look like another one's line, or like imctl's own. The ends of lines are shown as \n and \r.
func printable(s string) string {
	bad := unprintable
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case bad(r):
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// printableLines is printable for a text that may have several lines: each after the first begins with indent.
func printableLines(s, indent string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(strings.TrimSuffix(l, "\r"))
	}
	return strings.Join(lines, "\n"+indent)
}

// payloadText is a payload as one line. The end of its last line is left out: whoever pipes a line into "client send -" sends it along.
func payloadText(payload []byte) string {
	if !utf8.Valid(payload) {
		return "base64:" + base64.StdEncoding.EncodeToString(payload)
	}
	return printable(strings.TrimSuffix(strings.TrimSuffix(string(payload), "\n"), "\r"))
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
