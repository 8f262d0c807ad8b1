//go:build race

package node

const modelRaceDetector = true
