//go:build unix && !linux

package cli

import "syscall"

// childAttr: a process group of its own, so that Ctrl-C reaches only us and we end the children in order. That they die
// with us is left to the pipe.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
