package bench

// maxFiles: there is no such limit here.
func maxFiles() int { return 1 << 30 }
