package node

// openFileLimit: Windows has no such limit on sockets.
func openFileLimit() (uint64, bool) { return 0, false }
