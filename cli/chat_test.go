package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// chatWire records what a room sends.
type chatWire struct {
	sent []string
	done []func(client.Result)
}

func (w *chatWire) SendToAsync(to client.Address, payload []byte, ack wire.AckMode, _ time.Duration, done func(client.Result)) (wire.MessageID, error) {
	w.sent = append(w.sent, fmt.Sprintf("%s %s %s", to, ack, payload))
	if done != nil {
		w.done = append(w.done, done)
	}
	return wire.MessageID{}, nil
}

func (w *chatWire) take() string {
	s := strings.Join(w.sent, "\n")
	w.sent = nil
	return s
}

type chatRig struct {
	*chatRoom
	w     chatWire
	shown []string
}

func newChatRig() *chatRig {
	r := &chatRig{}
	r.chatRoom = newChatRoom("ann", "lobby", func(e chatEvent) { r.shown = append(r.shown, e.text()) })
	r.connected("n1", "a:1")
	r.enter(&r.w)
	return r
}

func (r *chatRig) hears(from string, direct bool, payload, want string) {
	r.hear(from, direct, []byte(payload))
	r.expect(want)
}

func (r *chatRig) expect(want string) {
	got := strings.Join(r.shown, "\n")
	r.shown = nil
	if got != want {
		panic(fmt.Sprintf("shown:\n%s\nwant:\n%s", got, want))
	}
}

func TestChatRoom(t *testing.T) {
	r := newChatRig()
	r.expect("* you are in, as ann (n1, a:1)")
	if got, want := r.w.take(), `group room:lobby owner {"room":"lobby","type":"join","node":"n1","addr":"a:1"}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	r.hears("ann", false, `{"room":"lobby","type":"join","node":"n1"}`, "") // our own comes back
	r.hears("bob", false, `{"room":"lobby","type":"join","node":"n2","addr":"a:2"}`, "* bob came in (n2, a:2)")
	if got, want := r.w.take(), `bob none {"room":"lobby","type":"here","node":"n1","addr":"a:1"}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	r.hears("cat", true, `{"room":"lobby","type":"here","node":"n3","addr":"a:3"}`, "* cat is here (n3, a:3)")
	r.hears("cat", true, `{"room":"lobby","type":"here","node":"n3","addr":"a:3"}`, "")
	r.hears("bob", false, `{"room":"lobby","type":"typing","node":"n2"}`, "")
	r.hears("bob", false, `{"room":"lobby","type":"say","text":"hello","node":"n2"}`, "bob (n2): hello")
	r.hears("bob", false, `{"room":"lobby","type":"move","before":"n2","node":"n3","addr":"a:3"}`, "* bob moved from n2 to n3")
	r.hears("bob", false, `{"room":"elsewhere","type":"say","text":"x"}`, "")
	r.hears("dan", false, "no JSON\x1b[2J", `dan: no JSON\u001b[2J`)
	r.hears("dan", true, `{"a":1}`, `dan to you alone: {"a":1}`)
	if got, want := strings.Join(r.here(), ", "), "ann (n1), bob (n3), cat (n3)"; got != want {
		t.Errorf("here: %s, want %s", got, want)
	}
	r.w.take()
	r.connected("n2", "a:2")
	r.expect("* you moved from n1 to n2, a:2")
	if got := r.w.take(); !strings.Contains(got, `"type":"move","node":"n2","addr":"a:2","before":"n1"`) {
		t.Errorf("sent %s", got)
	}
	r.hears("bob", false, `{"room":"lobby","type":"leave"}`, "* bob left")
	r.hears("bob", false, `{"room":"lobby","type":"leave"}`, "")
	r.leave()
	if got := r.w.take(); !strings.Contains(got, `"type":"leave"`) {
		t.Errorf("sent %s", got)
	}
}

// TestChatSilence: who is not heard is asked, and goes when the cluster says offline, or never answers.
func TestChatSilence(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		r := newChatRig()
		for _, name := range []string{"bob", "cat", "dan"} {
			r.hear(name, false, []byte(`{"room":"lobby","type":"join","node":"n2"}`))
		}
		r.w.done = nil // of the hello
		r.w.take()
		r.shown = nil
		r.askSilent(time.Now().Add(chatSilent))
		if got := r.w.take(); got != "" {
			t.Errorf("asked too soon: %s", got)
		}
		time.Sleep(chatSilent + time.Second) // virtual
		r.askSilent(time.Now())
		if got := strings.Count(r.w.take(), `"type":"ask"`); got != 3 {
			t.Errorf("asked %d, want 3", got)
		}
		r.w.done[0](client.Result{Code: wire.Offline})
		r.w.done[1](client.Result{Code: wire.Unavailable}) // says nothing about cat
		r.hears("dan", true, `{"room":"lobby","type":"here","node":"n2"}`, "* bob is gone (offline)")
		for range chatAskTimes {
			r.askSilent(time.Now())
		}
		r.expect("* cat is gone (not in this room any more)")
		if got, want := strings.Join(r.here(), ", "), "ann (n1), dan (n2)"; got != want {
			t.Errorf("here: %s, want %s", got, want)
		}
	})
}

func TestChatBound(t *testing.T) {
	r := newChatRig()
	for i := range 2 * chatMaxPeople {
		r.hear(fmt.Sprint("c", i), false, []byte(`{"room":"lobby","type":"say","text":"x"}`))
	}
	if n := len(r.here()); n > chatMaxPeople+1 {
		t.Errorf("%d people are remembered", n)
	}
}

// TestChatLines: plain streams, the last line without its end included; then the end of the input, again and again.
func TestChatLines(t *testing.T) {
	o := &chatOptions{loginOptions: loginOptions{app: newApp(IOStreams{In: strings.NewReader("one\ntwo")})}}
	l := o.openChatLines()
	if err := o.takeTerminal(l); err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for _, want := range []string{"one\n", "two"} {
		if got, err := l.next(t.Context()); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	for range 2 {
		if _, err := l.next(t.Context()); err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
	}
}

// chatSaid takes lines, and refuses the first ones.
type chatSaid struct {
	refuse int
	lines  []string
}

func (s *chatSaid) SendTo(_ context.Context, _ client.Address, payload []byte, _ ...client.SendOption) (client.Result, error) {
	if s.refuse > 0 {
		s.refuse--
		return client.Result{Code: wire.RateLimited, Retry: 300 * time.Millisecond}, &wire.Error{Code: wire.RateLimited}
	}
	var f chatFrame
	if err := json.Unmarshal(payload, &f); err != nil {
		return client.Result{}, err
	}
	s.lines = append(s.lines, f.Text)
	return client.Result{Code: wire.Delivered, Count: 2}, nil
}

// TestChatCommands: a slash begins a command, and what is none is not sent; two slashes send one.
func TestChatCommands(t *testing.T) {
	r := newChatRig()
	r.shown = nil
	o := &chatOptions{loginOptions: loginOptions{app: newApp(IOStreams{In: strings.NewReader("/foo bar\n //me waves\n/help\n/who\n  \nhello /quit\n/quit\nnot any more\n")})}}
	o.timeout = time.Second
	var said chatSaid
	if err := o.sayAll(t.Context(), &said, r.chatRoom, o.openChatLines()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(said.lines, "|"); got != " /me waves|hello /quit" {
		t.Errorf("sent %q", got)
	}
	if len(r.shown) != 3 || !strings.Contains(r.shown[0], "unknown command /foo, /help lists them") || !strings.Contains(r.shown[1], "/who lists") || !strings.Contains(r.shown[2], "here: ann") {
		t.Errorf("%q", r.shown)
	}
}

// TestChatUnderLimits: a hello that the limit refuses is told, and a line waits for the limit as long as it may.
func TestChatUnderLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newChatRig()
		r.shown = nil
		r.w.done[0](client.Result{Code: wire.RateLimited})
		r.expect("* the others were not told that you came in (rate_limited)")
		r.announced(client.Result{Code: wire.Delivered})
		r.expect("")
		o := &chatOptions{loginOptions: loginOptions{app: newApp(IOStreams{In: strings.NewReader("one\ntwo\nthree\n")})}}
		o.timeout = time.Second
		said := chatSaid{refuse: 2}
		lines := o.openChatLines()
		next := func(refuse int) {
			said.refuse = refuse
			text, err := lines.next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = o.say(t.Context(), &said, r.chatRoom, strings.TrimSpace(text))
			if (err == nil) != (refuse < 4) {
				t.Errorf("after %d refusals: %v", refuse, err)
			}
		}
		next(2)
		r.expect("* you send more than you may: this goes out as soon as the limit lets it")
		next(0)
		r.expect("")
		next(10)
		r.shown = nil
		if got := strings.Join(said.lines, "|"); got != "one|two" {
			t.Errorf("sent %q", got)
		}
	})
}

func FuzzChatHear(f *testing.F) {
	f.Add("bob", []byte(`{"room":"lobby","type":"move","before":"n1","node":"n2"}`))
	f.Add("b", []byte(`{"room":"lobby","type":"say","text":"\u202e"}`))
	f.Fuzz(func(t *testing.T, from string, payload []byte) {
		r := newChatRig()
		r.hear(from, false, payload)
		for _, s := range r.shown {
			if printable(s) != s {
				t.Errorf("%q could steer a terminal", s)
			}
		}
	})
}
