package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/node/webhook"
)

// askers are the back ends that are asked; nil: nobody is.
type askers struct {
	login   *webhook.Asker
	friends *webhook.Friends

	failing atomic.Bool // the login webhook gave no usable answer the last time
}

func (n *Node) newAskers() (err error) {
	w := &n.cfg.Webhook
	if w.LoginURL != "" {
		if n.askers.login, err = webhook.NewAsker(webhook.AskConfig{URL: w.LoginURL, Secret: w.Secret}); err != nil {
			return fmt.Errorf("login-webhook: %w", err)
		}
	}
	if w.FriendsURL == "" {
		if w.FriendsTTL != 0 {
			return errors.New("friends-ttl without --friends-webhook URL")
		}
		return nil
	}
	if n.cfg.Friends != nil {
		return errors.New("friends-webhook: this node has a friend source of its own")
	}
	if w.FriendsTTL < 0 || w.FriendsTTL > 24*time.Hour {
		return fmt.Errorf("friends-ttl is %v: want 1ns to 24h", w.FriendsTTL)
	}
	n.askers.friends, err = webhook.NewFriends(webhook.FriendsConfig{Ask: webhook.AskConfig{URL: w.FriendsURL, Secret: w.Secret}, TTL: w.FriendsTTL})
	if err != nil {
		return fmt.Errorf("friends-webhook: %w", err)
	}
	n.cfg.Friends = n.askers.friends
	return nil
}

func (a *askers) close() {
	a.login.Close()
	a.friends.Close()
}

// permitted asks the back end what a client that logs in may do, once, and has its session obey. Who is denied is told so for good;
// without an answer nobody is let in, and the client tries again, here or elsewhere.
func (n *Node) permitted(ctx context.Context, s *gateway.Session) error {
	if n.askers.login == nil {
		return nil
	}
	allowed, err := n.askers.login.Allowed(ctx, s.Client(), n.name)
	var denied *webhook.Denied
	switch {
	case errors.As(err, &denied):
		n.loginAnswered()
		return wire.Errorf(wire.Forbidden, "the back end does not let this client log in: %v", denied)
	case err != nil && context.Cause(ctx) != nil:
		return err // the client has gone
	}
	var g *gateway.Grants
	if err == nil {
		g, err = gateway.ParseGrants(allowed.Send, allowed.Join)
	}
	if err != nil {
		n.metrics.loginAsksFailed.Add(1)
		if !n.askers.failing.Swap(true) {
			n.log.Error("the login webhook fails; clients are turned away until it answers", "url", webhook.Shown(n.cfg.Webhook.LoginURL), "client", s.Client().String(), "err", err)
		}
		return wire.Errorf(wire.Busy, "the operator's login webhook fails, and without its answer nobody is let in")
	}
	n.loginAnswered()
	s.Restrict(g)
	return nil
}

func (n *Node) loginAnswered() {
	if n.askers.failing.Swap(false) {
		n.log.Info("the login webhook answers again", "url", webhook.Shown(n.cfg.Webhook.LoginURL))
	}
}
