package nodetest

import (
	"os"
	"syscall"
)

// supported: processes can be stopped, continued, and die with the test.
const supported = true

// processAttr: death with the test, and a process group of its own, so that Ctrl-C does not reach it first.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func pauseProcess(p *os.Process) error  { return p.Signal(syscall.SIGSTOP) }
func resumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
func askProcess(p *os.Process) error    { return p.Signal(syscall.SIGTERM) }
