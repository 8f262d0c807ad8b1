//go:build !linux

package nodetest

// Spaces are network namespaces, which there are on Linux only.
type Spaces struct{}

func needsSpaces() string                           { return errUnsupported.Error() }
func newSpaces([]*Node) (*Spaces, error)            { return nil, errUnsupported }
func (*Spaces) within(_ *Node, a []string) []string { return a }
func (*Spaces) close() error                        { return nil }

// Isolate is not supported.
func (*Spaces) Isolate(*Node) error { return errUnsupported }

// Mute is not supported.
func (*Spaces) Mute(*Node) error { return errUnsupported }

// Deafen is not supported.
func (*Spaces) Deafen(*Node) error { return errUnsupported }

// Blackhole is not supported.
func (*Spaces) Blackhole(_, _ *Node) error { return errUnsupported }

// Lose is not supported.
func (*Spaces) Lose(*Node) error { return errUnsupported }

// Link is not supported.
func (*Spaces) Link(*Node, string) error { return errUnsupported }

// Heal is not supported.
func (*Spaces) Heal() error { return errUnsupported }
