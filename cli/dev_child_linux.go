package cli

import "syscall"

// childAttr: a process group of its own, so that Ctrl-C reaches only us and we end the children in order; and death with
// the parent.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
