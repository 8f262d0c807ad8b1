//go:build !linux

package nodetest

import "testing"

type disk struct{}

func needsDisks() string                     { return errUnsupported.Error() }
func needsTracer() string                    { return errUnsupported.Error() }
func mountDisk(string, int64) (*disk, error) { return nil, errUnsupported }
func (*disk) fill(t testing.TB)              { t.Fatal(errUnsupported) }
func (*disk) free(t testing.TB)              { t.Fatal(errUnsupported) }
func (*disk) close() error                   { return nil }

type tracer struct{}

func (*Node) inject(t testing.TB, _ string) *tracer {
	t.Fatal(errUnsupported)
	return nil
}
func (*tracer) kill() {}
