package cli

import (
	"os"
	"syscall"
)

// childAttr: a process group of its own, so that Ctrl-C reaches only us and we end the children in order. That they die
// with us is left to the pipe.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// askToEnd: there is no SIGTERM here; closing the pipe asks.
func askToEnd(*os.Process) error { return nil }
