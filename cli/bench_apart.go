package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"imroute/cli/bench"
)

// apart is "bench send" in a process of its own, for pairs whose latency is measured while this process has thousands of other clients
// in its hands: here they would wait for their turn among them. A run that ctx cuts short returns what was measured until then, and
// ctx's cause.
func (o *benchOptions) apart(ctx context.Context, t bench.Target, s bench.SendOptions) (r bench.Result, err error) {
	args := []string{
		"bench", "send", "--addr", strings.Join(t.Addrs, ","), "--transport", t.Transport, "--output", "json",
		"--ack", s.Ack.String(), "--pairs", strconv.Itoa(s.Pairs), "--size", strconv.Itoa(s.Size),
		"--rate", strconv.FormatFloat(s.Rate, 'g', -1, 64), "--warm", s.Warm.String(), "--duration", s.Duration.String(),
	}
	if s.Placement != bench.Across { // which is how it is
		args = append(args, "--"+s.Placement)
	}
	cmd := exec.CommandContext(ctx, o.io.Executable, args...)
	cmd.WaitDelay = closeTimeout
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	switch {
	case len(out) > 0: // otherwise the result says what is wrong
		err = json.Unmarshal(out, &r)
	case ctx.Err() == nil:
		err = fmt.Errorf("the others' process: %w: %s", err, strings.TrimSpace(words.String()))
	}
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, err
}
