package cli

import (
	"errors"
	"io"
	"os/exec"
	"runtime"
	"time"
)

// child is a running process of our own program. Its methods may be called from several goroutines.
type child struct {
	pid    int
	exited chan struct{} // closed when it ended and its output was read

	// fixed after the start
	cmd *exec.Cmd
	in  io.WriteCloser // its end tells the child that we are gone

	err error // how it ended; valid once exited is closed
}

// childOutputWait is how long a dead child's output is waited for, should somebody it started keep it open.
const childOutputWait = 2 * time.Second

// startChild starts exe with args; both its outputs go to out. The child ends when this process does.
func startChild(exe string, args []string, out io.Writer) (*child, error) {
	c := &child{exited: make(chan struct{}), cmd: exec.Command(exe, args...)}
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.WaitDelay = childOutputWait
	c.cmd.SysProcAttr = childAttr()
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	go func() {
		// On Linux the child is to die with its parent, which there means: with the thread that started it. So this thread
		// is kept until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(err, c.in.Close())
	}
	c.pid = c.cmd.Process.Pid
	return c, nil
}

func (c *child) running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// terminate asks the child to end in order.
func (c *child) terminate() {
	_ = c.in.Close()            // this alone would do; it fails only for a child that has ended
	_ = askToEnd(c.cmd.Process) // likewise
}

func (c *child) kill() { _ = c.cmd.Process.Kill() } // fails only for a child that has ended

// reason says how the child ended. Valid once exited is closed.
func (c *child) reason() string {
	if c.err == nil {
		return "it stopped in order"
	}
	return c.err.Error()
}
