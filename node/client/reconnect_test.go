package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imroute/mesh/wire"
)

func TestReconnectByClass(t *testing.T) {
	for _, tc := range []struct {
		code  wire.Code
		again string // "" means never
	}{
		{wire.Kicked, ""},
		{wire.Replaced, ""},
		{wire.AlreadyOnline, ""},
		{wire.BadToken, ""},
		{wire.ProtocolError, ""},
		{wire.TokenExpired, "a:1"},
		{wire.IdleTimeout, "a:1"},
		{wire.SlowReader, "a:1"},
		{wire.Superseded, "a:1"},
		{wire.Draining, "b:1"},
		{wire.LeaseLost, "b:1"},
		{wire.ShuttingDown, "b:1"},
		{wire.Code(60000), "b:1"}, // of a later version
		{wire.None, "b:1"},        // a kick without a code is malformed
	} {
		t.Run(tc.code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, "a:1", "b:1", "c:1")
				st := newStates()
				cfg := n.config("a:1", "b:1", "c:1")
				cfg.OnState = st.on
				var fc *fakeConn
				c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
				st.want(t, Connected)
				fc.kick(wire.Frame{Code: tc.code, Text: "because"})
				closed := st.want(t, Closed)
				if closed.Retrying != (tc.again != "") {
					t.Fatalf("state %q: retrying is wrong", closed)
				}
				if tc.again == "" {
					<-c.Done()
					wantCode(t, c.Err(), tc.code)
					_, err := c.Send(t.Context(), "bob", nil)
					wantCode(t, err, tc.code)
				} else {
					second := n.nodes[tc.again].welcome(2)
					if got := st.want(t, Connected); got.Addr != tc.again || got.Epoch != 2 {
						t.Fatalf("connected as %q", got)
					}
					if second.login.Attempt <= fc.login.Attempt || second.login.Instance != fc.login.Instance {
						t.Fatalf("logins %+v then %+v: same instance and a higher attempt wanted", fc.login, second.login)
					}
				}
				shut(t, c)
			})
		})
	}
}

func TestRefusedLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		c := open(t, n.config("a:1", "b:1"), func() {
			n.nodes["a:1"].refuse(wire.Frame{Code: wire.Internal}) // here: once more
			n.nodes["a:1"].refuse(wire.Frame{Code: wire.NoQuorum}) // elsewhere
			n.nodes["b:1"].welcome(1)
		})
		if got, want := n.dialed(), []string{"a:1", "a:1", "b:1"}; !slices.Equal(got, want) {
			t.Errorf("dialed %v, want %v", got, want)
		}
		shut(t, c)
	})
}

func TestHereIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		c := open(t, n.config("a:1", "b:1"), func() {
			for range maxHere + 1 {
				n.nodes["a:1"].refuse(wire.Frame{Code: wire.NotReady})
			}
			n.nodes["b:1"].welcome(1)
		})
		shut(t, c)
	})
}

func TestDialFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		go n.nodes["a:1"].refuse(wire.Frame{Code: wire.BadToken, Text: "no such key"})
		_, err := Dial(t.Context(), n.config("a:1", "b:1"))
		wantCode(t, err, wire.BadToken)
		if len(n.dialed()) != 1 {
			t.Errorf("dialed %v", n.dialed())
		}
	})
}

func TestDialGivesUpWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := Dial(ctx, n.config("a:1", "b:1"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error is %v", err)
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := Dial(ctx, n.config("a:1", "b:1")); err == nil {
			t.Fatal("connected to nothing")
		}
		// with random fixed at a half: half of 50 ms, then three quarters of what doubles from 50 ms to 5 s
		want := []float64{25, 37.5, 75, 150, 300, 600, 1200, 2400, 3750, 3750}
		for i, ms := range want {
			w := time.Duration(ms * float64(time.Millisecond))
			if got := n.dials[i+1].at.Sub(n.dials[i].at); got != w {
				t.Errorf("pause %d is %s, want %s", i, got, w)
			}
			if w := []string{"a:1", "b:1"}[i%2]; n.dials[i].addr != w {
				t.Errorf("dial %d went to %s, want %s", i, n.dials[i].addr, w)
			}
		}
	})
}

func TestBackoffStartsAnewAfterAStableSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		st := newStates()
		cfg := n.config("a:1")
		cfg.OnState = st.on
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		var pauses []time.Duration
		for i := range 5 {
			st.want(t, Connected)
			if i == 3 {
				time.Sleep(stableAfter)
			}
			fc.conn.Close()
			pauses = append(pauses, st.want(t, Closed).After)
			fc = n.nodes["a:1"].welcome(wire.Epoch(i + 2))
		}
		if !(pauses[0] < pauses[1] && pauses[1] < pauses[2] && pauses[3] == pauses[0] && pauses[4] == pauses[1]) {
			t.Errorf("pauses %v", pauses)
		}
		shut(t, c)
	})
}

func TestRetryAfterIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		c := open(t, n.config("a:1", "b:1"), func() {
			n.nodes["a:1"].refuse(wire.Frame{Code: wire.Busy, RetryMS: 7000})
			n.nodes["b:1"].welcome(1)
		})
		if got := n.dials[1].at.Sub(n.dials[0].at); got < 7*time.Second || got > 9*time.Second {
			t.Errorf("came back after %s, was told 7s", got)
		}
		shut(t, c)
	})
}

func TestToldAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "x:1", "y:1")
		var fc *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() {
			fc = n.nodes["a:1"].accept()
			fc.want(wire.TypeLogin)
			fc.send(wire.Frame{Type: wire.TypeWelcome, Epoch: 1, Node: "a", IdleMS: 30000, MaxPayload: 100, Addrs: []string{"x:1"}})
		})
		fc.kick(wire.Frame{Code: wire.Draining, Addrs: []string{"y:1", "not an address"}})
		fc = n.nodes["y:1"].welcome(2) // what the kick said comes first
		delete(n.nodes, "a:1")
		fc.conn.Close()
		n.nodes["x:1"].welcome(3) // a and b are tried as well, x was learned from the welcome
		if got, want := n.dialed(), []string{"a:1", "y:1", "x:1"}; !slices.Equal(got, want) {
			t.Errorf("dialed %v, want %v", got, want)
		}
		shut(t, c)
	})
}

func TestConfiguredAddressesRemain(t *testing.T) {
	b, err := newAddressBook([]string{"a:1", "tls://b:1"}, func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		b.learn([]string{fmt.Sprintf("h%d:1", i)}, b.configured[0])
	}
	all := b.all()
	if len(all) != 2+maxLearned || all[0].String() != "a:1" || all[1].String() != "tls://b:1" || all[2].String() != "h99:1" {
		t.Errorf("%d addresses: %v", len(all), all)
	}
}

func TestTokenIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		asked := 0
		cfg.TokenSource = func(context.Context) (string, error) {
			if asked++; asked == 2 {
				return "", errors.New("the issuer is away")
			}
			return fmt.Sprintf("token %d", asked), nil
		}
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		fc.kick(wire.Frame{Code: wire.TokenExpired})
		second := n.nodes["a:1"].welcome(2)
		if fc.login.Token != "token 1" || second.login.Token != "token 3" {
			t.Errorf("tokens %q and %q", fc.login.Token, second.login.Token)
		}
		shut(t, c)
	})
}

func TestExpiredStaticTokenEndsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		cfg := n.config("a:1")
		cfg.Token = "old"
		var fc *fakeConn
		c := open(t, cfg, func() { fc = n.nodes["a:1"].welcome(1) })
		fc.kick(wire.Frame{Code: wire.TokenExpired})
		n.nodes["a:1"].refuse(wire.Frame{Code: wire.TokenExpired})
		<-c.Done()
		wantCode(t, c.Err(), wire.TokenExpired)
		shut(t, c)
	})
}

func TestWaitingExtendsTheLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		st := newStates()
		cfg := n.config("a:1")
		cfg.OnState = st.on
		c := open(t, cfg, func() {
			fc := n.nodes["a:1"].accept()
			fc.want(wire.TypeLogin)
			fc.send(wire.Frame{Type: wire.TypeWaiting, TimeoutMS: 30000})
			time.Sleep(29 * time.Second) // past LoginTimeout
			fc.send(wire.Frame{Type: wire.TypeWelcome, Epoch: 1, Node: "a", IdleMS: 30000, MaxPayload: 100})
		})
		if w := st.want(t, Waiting); w.Left != 30*time.Second || w.Addr != "a:1" {
			t.Errorf("state %q", w)
		}
		st.want(t, Connected)
		shut(t, c)
	})
}

func TestLoginTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		begun := time.Now()
		c := open(t, n.config("a:1", "b:1"), func() {
			n.nodes["a:1"].accept().want(wire.TypeLogin) // and says nothing
			n.nodes["b:1"].welcome(1)
		})
		if d := time.Since(begun); d > 6*time.Second {
			t.Errorf("a node that hangs kept the client from the other one for %v", d)
		}
		shut(t, c)
	})
}

// The last one left gets the whole time: it may just be slow.
func TestSlowLoginAtTheOnlyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		c := open(t, n.config("a:1"), func() {
			fc := n.nodes["a:1"].accept()
			fc.want(wire.TypeLogin)
			time.Sleep(9 * time.Second)
			fc.send(wire.Frame{Type: wire.TypeWelcome, Epoch: 1, Node: "a", IdleMS: 30000, MaxPayload: 100})
		})
		if d := n.dialed(); len(d) != 1 {
			t.Errorf("dialled %v", d)
		}
		shut(t, c)
	})
}

func TestDisableReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		cfg := n.config("a:1", "b:1")
		cfg.DisableReconnect = true
		var fc *fakeConn
		c := open(t, cfg, func() {
			n.nodes["a:1"].refuse(wire.Frame{Code: wire.Draining}) // Dial itself still looks around
			fc = n.nodes["b:1"].welcome(1)
		})
		fc.conn.Close()
		<-c.Done()
		wantCode(t, c.Err(), wire.ConnectionLost)
		shut(t, c)
	})
}

func TestEpochGoingBackwardsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var fc *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { fc = n.nodes["a:1"].welcome(9) })
		fc.kick(wire.Frame{Code: wire.Draining})
		n.nodes["b:1"].welcome(8).wantGone()
		n.nodes["a:1"].welcome(10)
		shut(t, c)
	})
}

func TestGoawayMovesWithoutLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1", "c:1")
		st := newStates()
		cfg := n.config("a:1", "b:1")
		cfg.OnState = st.on
		var old *fakeConn
		c := open(t, cfg, func() { old = n.nodes["a:1"].welcome(1) })
		st.want(t, Connected)
		results := asyncResults(t, c, wire.AckOwner, 2)
		first, second := old.want(wire.TypeSend), old.want(wire.TypeSend)
		old.send(wire.Frame{Type: wire.TypeGoaway, Code: wire.Draining, TimeoutMS: 10000, Addrs: []string{"c:1"}})
		fresh := n.nodes["c:1"].welcome(2)
		st.want(t, Connected)
		// what is unanswered is repeated under its id over the new session
		for _, f := range []*wire.Frame{first, second} {
			if got := fresh.want(wire.TypeSend); got.ID != f.ID {
				t.Errorf("repeated %d, want %d", got.ID, f.ID)
			}
		}
		// what the old node delivered before it gave up ownership still arrives, and before what the new one delivers
		go fresh.deliver(2, 7, 2, wire.AckNone, "over the new session")
		synctest.Wait()
		old.deliver(1, 7, 1, wire.AckNone, "over the old session")
		old.result(first.ID, wire.Delivered)    // true whichever way it comes
		old.result(second.ID, wire.Unavailable) // not the last word
		old.kick(wire.Frame{Code: wire.Superseded})
		wantMessage(t, c, "over the old session")
		wantMessage(t, c, "over the new session")
		fresh.result(second.ID, wire.Delivered)
		for range 2 {
			if r := <-results; r.Code != wire.Delivered {
				t.Errorf("result %+v", r)
			}
		}
		if len(st.ch) != 0 {
			t.Errorf("unexpected state %q", <-st.ch)
		}
		shut(t, c)
	})
}

func TestGoawayWithNowhereToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1")
		var fc *fakeConn
		c := open(t, n.config("a:1"), func() { fc = n.nodes["a:1"].welcome(1) })
		fc.send(wire.Frame{Type: wire.TypeGoaway, Code: wire.Draining, TimeoutMS: 10000})
		synctest.Wait()
		fc.deliver(1, 7, 1, wire.AckNone, "still here")
		wantMessage(t, c, "still here")
		fc.kick(wire.Frame{Code: wire.Draining})
		n.nodes["a:1"].welcome(2)
		shut(t, c)
	})
}

func TestOldSessionThatDoesNotEndIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		var old *fakeConn
		c := open(t, n.config("a:1", "b:1"), func() { old = n.nodes["a:1"].welcome(1) })
		old.send(wire.Frame{Type: wire.TypeGoaway, Code: wire.Draining})
		fresh := n.nodes["b:1"].welcome(2)
		fresh.deliver(2, 7, 1, wire.AckNone, "new")
		wantMessage(t, c, "new")
		old.wantGone()
		shut(t, c)
	})
}

// A node without a quorum asks for time, but another one may take the login at once; only when all were asked it is waited.
func TestRetryAfterOfOneNodeDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a:1", "b:1")
		refusal := wire.Frame{Code: wire.NoQuorum, RetryMS: 7000}
		c := open(t, n.config("a:1", "b:1"), func() {
			n.nodes["a:1"].refuse(refusal)
			n.nodes["b:1"].refuse(refusal)
			n.nodes["a:1"].welcome(1)
		})
		if got := n.dials[1].at.Sub(n.dials[0].at); got > 100*time.Millisecond {
			t.Errorf("went to the other node after %s", got)
		}
		if got := n.dials[2].at.Sub(n.dials[1].at); got < 7*time.Second || got > 9*time.Second {
			t.Errorf("came back after %s, was told 7s by both", got)
		}
		shut(t, c)
	})
}
