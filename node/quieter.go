package node

import (
	"context"
	"log/slog"
)

// quieter passes on a library's log one level lower: what is news to Raft is detail to an operator.
type quieter struct{ slog.Handler }

func quieterLogger(l *slog.Logger) *slog.Logger { return slog.New(quieter{l.Handler()}) }

const oneLevel = slog.LevelWarn - slog.LevelInfo

func (q quieter) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, level-oneLevel)
}

func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level -= oneLevel
	return q.Handler.Handle(ctx, r)
}

func (q quieter) WithAttrs(a []slog.Attr) slog.Handler { return quieter{q.Handler.WithAttrs(a)} }
func (q quieter) WithGroup(name string) slog.Handler   { return quieter{q.Handler.WithGroup(name)} }
