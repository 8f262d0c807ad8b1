//go:build race

package lane

const raceEnabled = true // under the race detector sync.Pool drops at random what it is given
