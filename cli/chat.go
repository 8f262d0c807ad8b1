package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"imroute/mesh/wire"
	"imroute/node/client"
)

type chatOptions struct {
	loginOptions
	room string
	stay bool
}

func newChatCmd(a *app) *cobra.Command {
	o := &chatOptions{loginOptions: loginOptions{app: a}}
	c := &cobra.Command{
		Use: "chat --as NAME [--room ROOM]", Short: "Talk to everybody in a room, whichever node they are connected to",
		Long: "Chat joins a room, tells who comes and goes, prints what others say and sends each line of its input to them.\n" +
			"In development mode every node has a page for the same rooms on its WebSocket port: http://127.0.0.1:7902/\n\n" +
			"A line \"/who\" lists who is here, \"/quit\" leaves, and so does the end of the input unless --stay is given.\n" +
			"\"/help\" lists the commands; a line that begins with \"//\" is sent with one \"/\".\n" +
			"With --output json each event is one object a line.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.room, "room", "lobby", "room to be in")
	c.Flags().BoolVar(&o.stay, "stay", false, "stay when the input has ended, until Ctrl-C")
	_ = c.MarkFlagRequired("as") // the flag exists
	return c
}

func (o *chatOptions) run(ctx context.Context) error {
	cfg, err := o.config(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx) // also ended by output that nobody reads any more
	defer stop(nil)
	lines := o.openChatLines()
	defer func() { lines.close() }()
	show := func(e chatEvent) {
		var err error
		if o.asJSON() {
			err = o.printLine(e)
		} else {
			err = lines.print(e.text())
		}
		if err != nil {
			stop(err)
		}
	}
	room := newChatRoom(o.as, o.room, show)
	if err := checkGroup(room.group()); err != nil {
		return err
	}
	cfg.Groups = []string{room.group()}
	cfg.OnState = func(s client.State) {
		o.refused.note(s)
		o.chatState(room, s)
	}
	cfg.OnLeft = func(_ string, why *wire.Error) {
		stop(codeError(why.Code, "you are not in the room any more: "+why.Error(), ""))
	}
	c, err := o.dial(ctx, cfg)
	if err != nil {
		return unlessInterrupted(err)
	}
	if err = o.takeTerminal(lines); err == nil {
		room.enter(c)
		err = o.talk(ctx, c, room, lines)
		room.leave()
	}
	return goodbye(ctx, c, err)
}

// chatState tells what happens to the connection. Logins that fail one after another are one event.
func (o *chatOptions) chatState(room *chatRoom, s client.State) {
	switch s.Kind {
	case client.Connected:
		room.connected(s.Node, s.Addr)
	case client.Waiting:
		room.told(chatEvent{Event: "waiting", Addr: s.Addr, Reason: short(s.Left)})
	case client.Closed:
		if s.Retrying && (s.Code == wire.Superseded || s.Code == wire.Draining && s.After == 0) {
			return // our own next session took over
		}
		if s.Retrying && room.lost() {
			room.told(chatEvent{Event: "lost", Reason: s.Code.String()})
		}
		if !s.Retrying && s.Code != wire.Bye {
			room.told(chatEvent{Event: "closed", Reason: s.Code.String()})
		}
	}
}

// talk goes on until the input ends, the SDK gives up, or ctx ends.
func (o *chatOptions) talk(ctx context.Context, c *client.Client, room *chatRoom, lines *chatLines) error {
	ctx, stop := context.WithCancelCause(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop(nil)
	tasks.Go(func() { stop(o.hearAll(ctx, c, room)) })
	tasks.Go(func() {
		ask := time.NewTicker(chatAskEvery)
		defer ask.Stop()
		for {
			select {
			case now := <-ask.C:
				room.askSilent(now)
			case <-ctx.Done():
				return
			}
		}
	})
	lines.onTyping(room.typing)
	err := o.sayAll(ctx, c, room, lines)
	if errors.Is(err, io.EOF) && o.stay {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, errInterrupted):
		return nil
	}
	return err
}

// hearAll hands the room what arrives. It returns when the SDK gives up or ctx ends.
func (o *chatOptions) hearAll(ctx context.Context, c *client.Client, room *chatRoom) error {
	for {
		m, err := c.Receive(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return o.ended(err)
		}
		room.hear(m.From, m.Group != room.group(), m.Payload)
	}
}

// sayAll sends line after line. It returns io.EOF at the end of the input, nil for /quit.
func (o *chatOptions) sayAll(ctx context.Context, c chatSayer, room *chatRoom, lines *chatLines) error {
	for {
		line, err := lines.next(ctx)
		if err != nil {
			return err
		}
		text := strings.TrimRight(line, "\r\n")
		words := strings.Fields(text)
		switch {
		case len(words) == 0:
			continue
		case strings.HasPrefix(words[0], "//"):
			text = strings.Replace(text, "//", "/", 1)
		case words[0] == "/quit":
			return nil
		case words[0] == "/who":
			room.told(chatEvent{Event: "who", Text: "here: " + strings.Join(room.here(), ", ")})
			continue
		case words[0] == "/help":
			room.told(chatEvent{Event: "help", Text: "/who lists who is here, /quit leaves; //… sends a line that begins with /"})
			continue
		case words[0][0] == '/':
			room.told(chatEvent{Event: "unknown", Text: "unknown command " + words[0] + ", /help lists them (//… sends a line that begins with /)"})
			continue
		}
		if len(text) > chatMaxText {
			room.told(chatEvent{Event: "unsent", Text: text[:40] + "…", Reason: wire.TooLarge.String()})
			continue
		}
		reached, err := o.say(ctx, c, room, text)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			reason := err.Error()
			if w, ok := asWire(err); ok {
				reason = w.Code.String()
			}
			room.told(chatEvent{Event: "unsent", Text: text, Reason: reason})
		case reached == 0:
			room.told(chatEvent{Event: "alone", Text: "nobody else is here"})
		}
	}
}

// say sends a line and waits for the result. One that the sender's limit refuses is sent again, within --timeout: announcing oneself
// may have used the limit up.
func (o *chatOptions) say(ctx context.Context, c chatSayer, room *chatRoom, text string) (reached int, err error) {
	until := time.Now().Add(o.timeout)
	for slowed := false; ; slowed = true {
		res, err := room.say(ctx, c, text, o.timeout)
		again := max(res.Retry, 100*time.Millisecond)
		if w, ok := asWire(err); !ok || w.Code != wire.RateLimited || time.Now().Add(again).After(until) {
			return max(0, res.Count-1), err // without this client
		}
		if !slowed {
			room.told(chatEvent{Event: "slowed", Text: "you send more than you may: this goes out as soon as the limit lets it", Reason: wire.RateLimited.String()})
		}
		if pause(ctx, again) != nil {
			return 0, err
		}
	}
}
