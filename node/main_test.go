package node

import (
	"testing"

	"go.uber.org/goleak"
)

// Close must leave nothing behind, in whatever state the node was.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
