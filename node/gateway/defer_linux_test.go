package gateway

import (
	"testing"
	"time"

	"imroute/mesh/wire"
)

// TestAcceptHeard: who says nothing yet costs nothing here, while who speaks is served, and is served himself as soon as he does.
func TestAcceptHeard(t *testing.T) {
	r := newRig(t, nil)
	start := time.Now()
	silent := r.dial()
	r.login(r.dial(), "bob")
	conns := r.st.conns.Load()
	if took := time.Since(start); took > heardWithin*time.Second/2 {
		t.Skipf("this machine took %s for one login", took)
	}
	if conns != 1 {
		t.Errorf("%d connections were accepted: want that of bob alone, the other one has said nothing", conns)
	}
	r.login(silent, "alice")

	if testing.Short() {
		return
	}
	mute := r.dial()
	eventually(t, "a connection that says nothing", func() bool { return r.st.conns.Load() == 3 })
	mute.hangUp()
	eventually(t, "its end", func() bool { return r.st.conns.Load() == 2 })
	ping := r.dial()
	ping.send(&wire.Frame{Type: wire.TypePing})
	expectKick(t, ping, wire.ProtocolError)
}
