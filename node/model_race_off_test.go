//go:build !race

package node

const modelRaceDetector = false
