package cli

import "os"

// ballast makes a node's heap larger by what is never touched, so that no memory stands behind it: Go's collector runs when a heap
// has doubled, which a small one does several times while a dead node's clients log in. Each time it looks through the stacks of all of
// them, and whoever allocates has to help, so messages on their way wait.
var ballast []byte

const ballastBytes = 32 << 20

// takeBallast does that for the rest of the process. Who has set GOGC or GOMEMLIMIT wants something else.
func takeBallast() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" && ballast == nil {
		ballast = make([]byte, ballastBytes)
	}
}
