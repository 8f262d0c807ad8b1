package nodetest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a file system in memory that is one node's data folder.
type disk struct{ path string }

// needsDisks is why file systems cannot be mounted here; empty if they can.
func needsDisks() string {
	dir, err := os.MkdirTemp("", "imroute-disk-")
	if err != nil {
		return err.Error()
	}
	defer os.Remove(dir)
	d, err := mountDisk(dir, 1<<20)
	if err != nil {
		return "a small disk needs root and tmpfs: " + err.Error()
	}
	if err := d.close(); err != nil {
		return err.Error()
	}
	return ""
}

func mountDisk(path string, size int64) (*disk, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("imroute-test", path, "tmpfs", 0, "mode=0700,size="+strconv.FormatInt(size, 10)); err != nil {
		return nil, fmt.Errorf("mount a tmpfs at %s: %w", path, err)
	}
	return &disk{path}, nil
}

func (d *disk) ballast() string { return filepath.Join(d.path, "ballast") }

// fill leaves not a byte free.
func (d *disk) fill(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		switch _, err := f.Write(chunk); {
		case errors.Is(err, unix.ENOSPC):
			chunk = chunk[:len(chunk)/2]
		case err != nil:
			t.Fatal(err)
		}
	}
}

// free gives the space back.
func (d *disk) free(t testing.TB) {
	t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		t.Fatal(err)
	}
}

// close lets go of it; nil may be closed as well. Whoever has a file open there keeps it until then.
func (d *disk) close() error {
	if d == nil {
		return nil
	}
	if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path, err)
	}
	return nil
}

// tracer is an strace that tampers with a node's system calls.
type tracer struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// needsTracer is why system calls cannot be tampered with here; empty if they can.
func needsTracer() string {
	path, err := exec.LookPath("strace")
	if err != nil {
		return "strace is not installed"
	}
	// Its version says nothing about whether tracing is allowed, so it is tried.
	out, err := exec.Command(path, "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("strace does not work here: %v: %s", err, out)
	}
	return ""
}

// inject begins to tamper with every fsync and fdatasync of a node, in the words of strace's option inject, and returns once
// every thread is traced.
func (n *Node) inject(t testing.TB, how string) *tracer {
	t.Helper()
	pid := strconv.Itoa(n.run.cmd.Process.Pid)
	tr := &tracer{cmd: exec.Command("strace", "-f", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+how, "-p", pid), exited: make(chan struct{})}
	tr.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	says, err := tr.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan struct{})
	go func() {
		defer close(tr.exited)
		told := false
		for lines := bufio.NewScanner(says); lines.Scan(); { // to the end, or strace would block
			if !told && strings.Contains(lines.Text(), "attached") {
				told = true
				close(attached)
			}
		}
		_ = tr.cmd.Wait() // it ends with what it traces, whose end is what counts
	}()
	t.Cleanup(func() { tr.kill() })
	select {
	case <-attached:
	case <-tr.exited:
		t.Fatal("strace ended at once")
	case <-time.After(10 * time.Second):
		t.Fatal("strace did not attach")
	}
	return tr
}

// kill lets go of the process; what was held up goes on.
func (tr *tracer) kill() {
	select {
	case <-tr.exited:
	default:
		_ = tr.cmd.Process.Kill() // it may just have ended
		<-tr.exited
	}
}
