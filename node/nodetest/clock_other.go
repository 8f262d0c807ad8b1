//go:build !linux

package nodetest

import "time"

var clockStart = time.Now()

// Now reads the clock of all times in this package. Here it is not the one of the nodes, which cannot be started.
func Now() time.Duration { return time.Since(clockStart) }
