package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogAdapter lets Raft log through slog. Levels map one to one; Trace is below slog's Debug. Which levels are written is
// decided by the slog handler alone.
type hclogAdapter struct {
	log     *slog.Logger
	name    string
	implied []any
}

var _ hclog.Logger = hclogAdapter{}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func (a hclogAdapter) enabled(l hclog.Level) bool {
	return l != hclog.Off && a.log.Enabled(context.Background(), slogLevel(l))
}

func (a hclogAdapter) Log(l hclog.Level, msg string, args ...any) {
	if !a.enabled(l) {
		return
	}
	for i, v := range args {
		// hclog's lazy Sprintf: resolved here because slog would print the format and its arguments as a list.
		if f, ok := v.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	a.log.Log(context.Background(), slogLevel(l), msg, args...)
}

func (a hclogAdapter) Trace(msg string, args ...any) { a.Log(hclog.Trace, msg, args...) }
func (a hclogAdapter) Debug(msg string, args ...any) { a.Log(hclog.Debug, msg, args...) }
func (a hclogAdapter) Info(msg string, args ...any)  { a.Log(hclog.Info, msg, args...) }
func (a hclogAdapter) Warn(msg string, args ...any)  { a.Log(hclog.Warn, msg, args...) }
func (a hclogAdapter) Error(msg string, args ...any) { a.Log(hclog.Error, msg, args...) }

func (a hclogAdapter) IsTrace() bool { return a.enabled(hclog.Trace) }
func (a hclogAdapter) IsDebug() bool { return a.enabled(hclog.Debug) }
func (a hclogAdapter) IsInfo() bool  { return a.enabled(hclog.Info) }
func (a hclogAdapter) IsWarn() bool  { return a.enabled(hclog.Warn) }
func (a hclogAdapter) IsError() bool { return a.enabled(hclog.Error) }

func (a hclogAdapter) ImpliedArgs() []any { return a.implied }
func (a hclogAdapter) Name() string       { return a.name }

func (a hclogAdapter) With(args ...any) hclog.Logger {
	return hclogAdapter{log: a.log.With(args...), name: a.name, implied: append(a.implied[:len(a.implied):len(a.implied)], args...)}
}

func (a hclogAdapter) Named(name string) hclog.Logger {
	if a.name != "" {
		name = a.name + "." + name
	}
	return a.ResetNamed(name)
}

func (a hclogAdapter) ResetNamed(name string) hclog.Logger {
	a.name = name
	return a
}

func (a hclogAdapter) SetLevel(hclog.Level) {}

func (a hclogAdapter) GetLevel() hclog.Level {
	for l := hclog.Trace; l < hclog.Off; l++ {
		if a.enabled(l) {
			return l
		}
	}
	return hclog.Off
}

func (a hclogAdapter) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(a.StandardWriter(o), "", 0)
}

func (a hclogAdapter) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{a} }

// lineWriter logs each write as one message.
type lineWriter struct{ log hclogAdapter }

func (w lineWriter) Write(b []byte) (int, error) {
	w.log.Info(string(bytes.TrimRight(b, "\n")))
	return len(b), nil
}
