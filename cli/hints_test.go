package cli

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"imroute/mesh/wire"
	"imroute/node/admin"
	"imroute/node/client"
)

func TestReplacedHint(t *testing.T) {
	w := replacedHint("al/phone:1", "another device of its class logged in: al/phone:2")
	if !strings.Contains(w, "al/phone:2 came after al/phone:1") || !strings.Contains(w, "both are al/phone") || strings.Contains(w, "somebody else") {
		t.Error(w)
	}
	if w := replacedHint("bob", "the same client id logged in elsewhere"); !strings.Contains(w, "somebody else logged in as bob") {
		t.Error(w)
	}
}

func TestSendHintNamesTheTenant(t *testing.T) {
	o := &clientSendOptions{loginOptions: loginOptions{app: newWorld(t).app(nil, nil), tenant: "acme"}, to: "bob"}
	var f *failure
	if err := o.show(client.Result{Code: wire.Offline}, nil, "bob"); !errors.As(err, &f) || !strings.Contains(f.hint, "--as bob --tenant acme") {
		t.Errorf("%v", f)
	}
}

// What was refused here has no id, and none is made up.
func TestRefusedHasNoID(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		var out bytes.Buffer
		o := &clientSendOptions{loginOptions: loginOptions{app: newWorld(t).app(&out, nil)}, to: "bob"}
		o.output = output
		if err := o.show(client.Result{}, &wire.Error{Code: wire.TooLarge}, "bob"); err == nil {
			t.Error("no error")
		}
		if s := out.String(); !strings.Contains(s, "too_large") || strings.Contains(s, "id") {
			t.Errorf("%s: %s", output, s)
		}
	}
}

// full is an output that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// A login that is ended because nothing can be printed says that, and nothing of the login.
func TestOutputEndsALogin(t *testing.T) {
	silent := listenWith(t, func(c net.Conn) {
		var f wire.Frame
		_ = wire.NewFrameReader(c, 0).Next(&f)
		_, _ = c.Write(wire.AppendFrame(nil, &wire.Frame{Type: wire.TypeWaiting, TimeoutMS: 60000}))
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	})
	var errs syncBuffer
	code := run([]string{"client", "connect", "--as", "bob", "--addr", silent}, newWorld(t).app(full{}, &errs))
	if e := errs.String(); code != ExitError || !strings.HasPrefix(e, "imctl: cannot write the output: no space left on device") || strings.Contains(e, "login") {
		t.Errorf("%d %s", code, e)
	}
}

func TestUnwritableContext(t *testing.T) {
	if runtime.GOOS == "windows" || os.Getuid() == 0 && runtime.GOOS != "linux" {
		t.Skip("needs a folder in which nothing can be made")
	}
	w := newWorld(t)
	dir := filepath.Join(w.dir, "imroute")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "context.json.lock"), 0o700); err != nil { // no file can be made of that name, not even by root
		t.Fatal(err)
	}
	code, _, errs := w.run("context", "clear", "--all")
	if code != ExitError || !strings.Contains(errs, "IMCTL_CONTEXT") || strings.Contains(errs, "another imctl") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestServeLooksForTheProgram(t *testing.T) {
	code, _, errs := newWorld(t).run("client", "serve", "clock", "--addr", "127.0.0.1:1", "--", filepath.Join(t.TempDir(), "none"))
	if code != ExitError || !strings.Contains(errs, "cannot run the program") {
		t.Errorf("%d %s", code, errs)
	}
}

// A program that is killed because nobody waits any more has not failed: its time was over.
func TestProgramOutOfTime(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := runProgram(ctx, []string{sleep, "60"}, client.Request{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestOneVoterIsTold(t *testing.T) {
	api := newFakeAPI(t, map[string]any{"GET /v1/cluster": admin.ClusterStatus{Health: admin.HealthOK, Voters: 1}})
	if code, out, errs := newWorld(t).run("cluster", "health", "--addr", api.addr()); code != ExitOK || !strings.HasPrefix(out, "ok\nhint: one voter") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestInterruptedCall(t *testing.T) {
	var b bytes.Buffer
	interruptedCall("request", "it may have been carried out, or may still be").report(&b, false)
	if got := b.String(); !strings.HasPrefix(got, "imctl: interrupted") || strings.Contains(got, "time") {
		t.Error(got)
	}
}
