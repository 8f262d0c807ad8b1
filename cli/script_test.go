package cli

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the stories in testdata/script: what a user can do, on real processes. Beside testscript's own commands
// they have
//
//	start NAME PROG ARGS…     run a program in the background; its outputs go to NAME.out and NAME.err
//	signal NAME SIG           send it TERM, INT or KILL
//	signalpid PID SIG         the same to any process of the story
//	ended NAME [CODE]         wait until it ended, with that exit code if one is given
//	waitline FILE RE [VAR]    wait until a line of FILE matches; VAR gets the first group
//	waitfor RE PROG ARGS…     run a program again and again until it succeeds and its output matches
//	waitcode CODE PROG ARGS…  run a program again and again until it exits with CODE
//	exitcode CODE PROG ARGS…  run a program once; its outputs go to exitcode.out and exitcode.err
//	http CODE METHOD URL [BODY]   ask once, with $BEARER as token if it is set; the answer goes to http.out
//	port VAR…                 free addresses on loopback
//	udpport VAR               a free UDP port's number
//
// Every wait fails after a minute. What still runs at the end is killed.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts whole clusters")
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("..", "testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("IMCTL_CONTEXT", filepath.Join(env.WorkDir, "context.json"))
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
			env.Values[jobsKey{}] = &jobs{byName: map[string]*job{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": scriptStart, "signal": scriptSignal, "signalpid": scriptSignalPID, "ended": scriptEnded,
			"waitline": scriptWaitLine, "waitfor": scriptWaitFor, "waitcode": scriptWaitCode, "exitcode": scriptExitCode, "http": scriptHTTP, "port": scriptPort, "udpport": scriptUDPPort,
		},
	})
}

// scriptWait bounds every wait of a story.
const scriptWait = time.Minute

type jobsKey struct{}

// jobs are the background processes of one story.
type jobs struct {
	mu     sync.Mutex
	byName map[string]*job
}

type job struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
}

func job1(ts *testscript.TestScript, name string) *job {
	js := ts.Value(jobsKey{}).(*jobs)
	js.mu.Lock()
	defer js.mu.Unlock()
	j := js.byName[name]
	if j == nil {
		ts.Fatalf("nothing called %s was started", name)
	}
	return j
}

func need(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg {
		ts.Fatalf("! is not understood here")
	}
	if len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

// command makes a command that runs in the story's folder and environment.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path, err := exec.LookPath(args[0]) // imctl is in the PATH that testscript.Main has set up
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{"PATH", "HOME", "TMPDIR", "WORK", "IMCTL_CONTEXT", "IMCTL_ADDR", "IMCTL_TOKEN", "NO_COLOR", "SYSTEMROOT", "GOCOVERDIR"} {
		if v := ts.Getenv(k); v != "" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	return cmd
}

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "start NAME PROG ARGS…")
	name := args[0]
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	errs, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	cmd := command(ts, args[1:])
	cmd.Stdout, cmd.Stderr = out, errs
	ts.Check(cmd.Start())
	j := &job{cmd: cmd, done: make(chan struct{})}
	go func() {
		j.err = cmd.Wait()
		_ = out.Close()
		_ = errs.Close()
		close(j.done)
	}()
	js := ts.Value(jobsKey{}).(*jobs)
	js.mu.Lock()
	js.byName[name] = j
	js.mu.Unlock()
	ts.Defer(func() {
		// In order, so that "imctl dev" takes its nodes along; by force if that does not help.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-j.done:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			<-j.done
		}
	})
}

var signals = map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": os.Interrupt, "KILL": os.Kill}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "signal NAME SIG")
	ts.Check(job1(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

func scriptSignalPID(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "signalpid PID SIG")
	pid, err := strconv.Atoi(args[0])
	ts.Check(err)
	p, err := os.FindProcess(pid)
	ts.Check(err)
	ts.Check(p.Signal(signals[args[1]]))
}

func scriptEnded(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "ended NAME [CODE]")
	j := job1(ts, args[0])
	select {
	case <-j.done:
	case <-time.After(scriptWait):
		ts.Fatalf("%s is still running", args[0])
	}
	if len(args) > 1 && strconv.Itoa(j.cmd.ProcessState.ExitCode()) != args[1] {
		ts.Fatalf("%s ended with %v, want %s", args[0], j.cmd.ProcessState, args[1])
	}
}

// eventually tries until ok, with a deadline.
func eventually(ts *testscript.TestScript, try func() (ok bool, state string)) {
	deadline := time.Now().Add(scriptWait)
	for {
		ok, state := try()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("did not come about within %s; last:\n%s", scriptWait, state)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func scriptWaitLine(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "waitline FILE RE [VAR]")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	eventually(ts, func() (bool, string) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil {
			return false, err.Error()
		}
		m := re.FindSubmatch(b)
		if m == nil {
			said, _ := os.ReadFile(ts.MkAbs(strings.TrimSuffix(args[0], ".out") + ".err"))
			return false, string(b) + "and to its error output:\n" + string(said)
		}
		if len(args) > 2 {
			ts.Setenv(args[2], string(m[len(m)-1]))
		}
		return true, ""
	})
}

// attempt runs a program once.
func attempt(ts *testscript.TestScript, args []string) (stdout, stderr []byte, code int) {
	cmd := command(ts, args)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	return out.Bytes(), errs.Bytes(), cmd.ProcessState.ExitCode()
}

func scriptWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "waitfor RE PROG ARGS…")
	re, err := regexp.Compile("(?ms)" + args[0])
	ts.Check(err)
	eventually(ts, func() (bool, string) {
		out, errs, code := attempt(ts, args[1:])
		ts.Check(os.WriteFile(ts.MkAbs("waitfor.out"), out, 0o600))
		return code == 0 && re.Match(out), fmt.Sprintf("exit code %d\n%s%s", code, out, errs)
	})
}

func scriptWaitCode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "waitcode CODE PROG ARGS…")
	eventually(ts, func() (bool, string) {
		out, errs, code := attempt(ts, args[1:])
		return strconv.Itoa(code) == args[0], fmt.Sprintf("exit code %d\n%s%s", code, out, errs)
	})
}

func scriptExitCode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "exitcode CODE PROG ARGS…")
	out, errs, code := attempt(ts, args[1:])
	ts.Logf("[stdout]\n%s[stderr]\n%s", out, errs)
	ts.Check(os.WriteFile(ts.MkAbs("exitcode.out"), out, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("exitcode.err"), errs, 0o600))
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func scriptHTTP(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "http CODE METHOD URL [BODY]")
	req, err := http.NewRequest(args[1], args[2], strings.NewReader(strings.Join(args[3:], " ")))
	ts.Check(err)
	if token := ts.Getenv("BEARER"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	c := &http.Client{Timeout: scriptWait, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Logf("%s\n%s", resp.Status, b)
	ts.Check(os.WriteFile(ts.MkAbs("http.out"), b, 0o600))
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("%s, want %s", resp.Status, args[0])
	}
}

func scriptPort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "port VAR…")
	p := newPortPicker()
	ts.Defer(p.close)                  // till then no other story is given them
	base := 20000 + os.Getpid()%200*50 // below the ephemeral ports, apart from other runs
	for i, name := range args {
		addr, err := p.one("tcp", fmt.Sprintf("127.0.0.1:%d", base+i), len(args))
		ts.Check(err)
		ts.Setenv(name, addr)
	}
}

func scriptUDPPort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "udpport VAR")
	// Below the range that systems take ports from by themselves: nobody else gets it before it is used.
	port := ""
	for port == "" {
		p := strconv.Itoa(20000 + rand.IntN(10000))
		if c, err := net.ListenPacket("udp4", "0.0.0.0:"+p); err == nil {
			ts.Check(c.Close())
			port = p
		}
	}
	ts.Setenv(args[0], port)
}
