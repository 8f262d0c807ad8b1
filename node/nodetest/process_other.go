//go:build !linux

package nodetest

import (
	"errors"
	"os"
	"syscall"
)

const supported = false

var errUnsupported = errors.New("nodetest starts processes on Linux only")

func processAttr() *syscall.SysProcAttr { return nil }

func pauseProcess(*os.Process) error  { return errUnsupported }
func resumeProcess(*os.Process) error { return errUnsupported }
func askProcess(*os.Process) error    { return errUnsupported }
