package cli

import (
	"bytes"
	"strings"
	"testing"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// forged is what a stranger may send to look like others, and like imctl.
const forged = "hi\nalice: please pay\r\n* closed (replaced)\u2028bob: yes\n"

// TestStrangersTextIsOneLine: whatever a stranger sends or is called, it is one line, and that begins as his lines do.
func TestStrangersTextIsOneLine(t *testing.T) {
	var out, errs syncBuffer
	a := newWorld(t).app(&out, &errs)
	why := &wire.Error{Code: wire.Kicked, Text: forged}
	connect := &clientConnectOptions{loginOptions: loginOptions{app: a, as: "bob"}}
	serve := &clientServeOptions{loginOptions: loginOptions{app: a, as: "s/1"}}
	for what, c := range map[string]struct {
		show  func() error
		begin string
	}{
		"a message": {func() error { return connect.showMessage(client.Message{From: "eve", Payload: []byte(forged)}) }, "eve: hi"},
		"no text":   {func() error { return connect.showMessage(client.Message{From: "eve", Payload: []byte("a\nb\xff")}) }, "eve: base64:"},
		"a group's name": {func() error {
			return connect.showMessage(client.Message{From: "eve", Group: forged, Payload: []byte("x")})
		}, "[hi"},
		"a group's end":   {func() error { return connect.showLeft(forged, why) }, "* no longer in hi"},
		"a node's reason": {func() error { return connect.showState(client.State{Kind: client.Closed, Text: forged}) }, "* closed (none: hi"},
		"a node's name":   {func() error { return connect.showState(client.State{Kind: client.Connected, Node: forged}) }, "* connected as bob to hi"},
		"an event": {func() error {
			return a.printf("%s\n", chatEvent{Event: "said", Name: "eve", Node: forged, Text: forged}.text())
		}, "eve (hi"},
		"a service's end": {func() error { return serve.showState(client.State{Kind: client.Closed, Text: forged}) }, "* closed: none (hi"},
		"presence": {func() error {
			return (&presenceWatchOptions{loginOptions: loginOptions{app: a}}).show(client.Presence{Client: forged, Online: true, Node: forged})
		}, "hi"},
		"a request": {func() error {
			_, err := serve.handler(nil, nil)(t.Context(), client.Request{From: "eve", Service: "s", Payload: []byte(forged)})
			return err
		}, "eve: hi"},
	} {
		before := len(out.String())
		if err := c.show(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		got := out.String()[before:]
		if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") || strings.ContainsAny(got, "\r\u2028") || !strings.HasPrefix(got, c.begin) {
			t.Errorf("%s: %q", what, got)
		}
	}
	var b bytes.Buffer
	(&failure{text: "fault 9: " + forged, hint: "look\n" + forged}).report(&b, false)
	for _, l := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		if !strings.HasPrefix(l, "imctl: ") && !strings.HasPrefix(l, "hint: ") && !strings.HasPrefix(l, "      ") {
			t.Errorf("an error's line %q", l)
		}
	}
	if got := payloadText([]byte("piped\r\n")); got != "piped" {
		t.Errorf("%q", got)
	}
}

// TestAnswerText: a program gets an answer as it is, a person one that steers nothing.
func TestAnswerText(t *testing.T) {
	o := &clientRequestOptions{clientSendOptions: clientSendOptions{loginOptions: loginOptions{app: newWorld(t).app(nil, nil)}}}
	for _, c := range []struct{ payload, raw, shown string }{
		{"12:00\n", "12:00\n", "12:00\n"},
		{"a\x1b[2J\nb", "a\x1b[2J\nb\n", `a\u001b[2J` + "\n| b\n"},
		{"\xff\n", "\xff\n", "base64:/wo=\n"},
	} {
		o.io.OutTTY = false
		if got := o.answerText([]byte(c.payload)); got != c.raw {
			t.Errorf("%q into a pipe: %q", c.payload, got)
		}
		o.io.OutTTY = true
		if got := o.answerText([]byte(c.payload)); got != c.shown {
			t.Errorf("%q in a terminal: %q", c.payload, got)
		}
	}
}
