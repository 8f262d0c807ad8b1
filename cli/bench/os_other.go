//go:build !linux

package bench

import "time"

func cpuOf([]int) time.Duration { return 0 }
func selfCPU() time.Duration    { return 0 }
func rssOf(int) int64           { return 0 }
func threadCPU() time.Duration  { return 0 }
func freeMemory() int64         { return 0 }
func nap(d time.Duration)       { time.Sleep(d) }

// manySources: only 127.0.0.1 is there unless somebody set up more.
const manySources = false
