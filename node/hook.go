package node

import (
	"context"
	"fmt"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/node/webhook"
	"imroute/raftfsm"
)

// Webhook says which back end is told of what happens to clients; URL empty: none. Give it to all nodes.
type Webhook struct {
	URL    string   // https, or http on loopback
	Secret string   // signs every request; at least 16 characters
	Events []string // connected, disconnected, undeliverable; none: all

	// What back ends are asked, by requests that the same Secret signs. Empty: nobody is asked.
	LoginURL   string        // what a client that logs in may send to and join
	FriendsURL string        // who its friends are, for Config.Friends
	FriendsTTL time.Duration // for how long such an answer serves; default 30 s
}

func (w *Webhook) enabled() bool { return w.URL != "" }

func (n *Node) newWebhook() error {
	w := &n.cfg.Webhook
	if _, err := webhook.ParseEvents(w.Events); err != nil { // before anything that is missing: it is what was typed last
		return err
	}
	if err := n.newAskers(); err != nil {
		return err
	}
	if !w.enabled() {
		if len(w.Events) > 0 {
			return fmt.Errorf("webhook-events without --webhook URL")
		}
		if w.Secret != "" && w.LoginURL == "" && w.FriendsURL == "" {
			return fmt.Errorf("webhook: a secret without --webhook, --login-webhook or --friends-webhook URL")
		}
		return nil
	}
	var err error
	n.hook, err = webhook.New(webhook.Config{URL: w.URL, Secret: w.Secret, Events: w.Events, Logger: n.log.With("part", "webhook")})
	return err
}

// sessionOpened reports a session whose registration holds.
func (n *Node) sessionOpened(s *gateway.Session) {
	if epoch := s.Epoch(); epoch != 0 { // 0: it was closed while it logged in
		n.hook.Emit(webhook.Session(webhook.Connected, n.name, s.Client(), epoch, ""))
	}
}

// sessionEnded reports its end.
func (n *Node) sessionEnded(s *gateway.Session) {
	if epoch := s.Epoch(); epoch != 0 && n.hook.Wants(webhook.Disconnected) {
		n.hook.Emit(webhook.Session(webhook.Disconnected, n.name, s.Client(), epoch, s.CloseCode().String()))
	}
}

// undelivered reports a message to one client that ended with code.
func (n *Node) undelivered(m *wire.Forward, code wire.Code) {
	if code == wire.Delivered || !n.hook.Wants(webhook.Undeliverable) {
		return
	}
	to := wire.ClientID{Tenant: m.Tenant, ID: m.To}
	n.hook.Emit(webhook.Message(n.name, to, m.From, wire.MessageID{Instance: m.Instance, Counter: m.Counter}, code))
}

// maxLost bounds what is kept of a dead node's clients until the webhook has room for them.
const maxLost = 200_000

// lostWith prepares to report the clients of an incarnation that is about to end without its node saying so: their rows are void
// right after. The function returned reports them, in the background; call it, once, with whether the incarnation has ended.
func (n *Node) lostWith(node wire.NodeID, inc wire.Incarnation) func(ended bool) {
	if !n.hook.Wants(webhook.Disconnected) || inc == 0 {
		return func(bool) {}
	}
	name := n.nameOf(node)
	view := n.fsm.Grab() // of directories only: the end of a lease must not wait for a scan of the table
	return func(ended bool) {
		if !ended {
			view.Close()
			return
		}
		n.group.Go(func() error { n.reportLost(n.ctx, view, name, node, inc); return nil })
	}
}

func (n *Node) reportLost(ctx context.Context, view *raftfsm.View, name string, node wire.NodeID, inc wire.Incarnation) {
	type lost struct {
		client wire.ClientID
		epoch  wire.Epoch
	}
	var all []lost
	more := 0
	for part := range raftfsm.Stripes {
		view.Owned(part, node, inc, func(r raftfsm.Route) {
			if len(all) >= maxLost {
				more++
				return
			}
			all = append(all, lost{r.Client, r.Epoch})
		})
	}
	view.Close() // before the webhook is waited for
	if more > 0 {
		n.log.Warn("webhook: a dead node had more clients than are reported", "node", name, "left_out", more)
	}
	for _, l := range all {
		n.hook.EmitWait(ctx, webhook.Session(webhook.Disconnected, name, l.client, l.epoch, webhook.NodeLost))
	}
}
