package raftfsm

import (
	"cmp"
	"slices"
	"strings"

	"imroute/mesh/wire"
)

// MaxDevices bounds the live routes of one user's devices: ids with the same part before "/". A Register of one more is answered
// OpOverloaded from feature level TopicFeatureLevel on, so that everything that goes to all devices of a user is bounded. Pages
// could hold any number of them: see bigUser.
const MaxDevices = 1000

// Device is a live route of a user. ID is the part of the client id behind "/", "" for the user's own id.
type Device struct {
	ID string
	Route
}

// Devices appends the live routes of a user to buf, by device id: that of the id without a device first, if there is one, then
// those of user/device. What user.ID has behind "/" is ignored. There are at most MaxDevices+1, but for those that registered
// before the cluster agreed on TopicFeatureLevel. It takes the read lock of one stripe, looks only at the page of the user's
// hash, or at the user's own pages if he has many devices, and allocates the ids.
func (f *FSM) Devices(user wire.ClientID, buf []Device) []Device {
	user.ID = user.User()
	h := user.Hash()
	n := stripeOf(h)
	mu := &f.stripes[n].RWMutex
	mu.RLock()
	list := f.table.devices(&f.table.stripes[n], user, h, buf)
	mu.RUnlock()
	slices.SortFunc(list[len(buf):], func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// devices is Devices without order. user.ID has no device.
func (t *Table) devices(s *stripe, user wire.ClientID, h uint64, list []Device) []Device {
	s.eachOfHash(h, func(p page, off int) {
		c := p.client(off)
		o := &t.owners.list[p.owner(off)]
		if !o.live || !isDeviceOf(c, user) {
			return
		}
		v := p.value(off)
		d := Device{Route: Route{Client: user, Node: o.node, Incarnation: o.inc, Session: v.session, Epoch: v.epoch}}
		if len(c.ID) > len(user.ID) {
			d.Client.ID = strings.Clone(c.ID)
			d.ID = d.Client.ID[len(user.ID)+1:]
		}
		list = append(list, d)
	})
	return list
}

// isDeviceOf says whether c is user's own id or one of his devices. user.ID has no device.
func isDeviceOf(c, user wire.ClientID) bool {
	n := len(user.ID)
	return len(c.ID) >= n && (len(c.ID) == n || c.ID[n] == '/') && c.ID[:n] == user.ID && c.Tenant == user.Tenant
}

// DeviceClass is the class of a client id's device, as Settings.OnePerClass compares it: what stands between "/" and the first
// ":" behind it, or all behind "/" if there is none. An id without a device has none.
func DeviceClass(c wire.ClientID) (class string, ok bool) {
	_, device, ok := strings.Cut(c.ID, "/")
	class, _, _ = strings.Cut(device, ":")
	return class, ok
}

// eachSibling calls f with every live row of another device of the same user.
func (t *Table) eachSibling(s *stripe, k key, f func(p page, off int, c wire.ClientID)) {
	user := wire.ClientID{Tenant: k.Tenant, ID: k.User()}
	s.eachOfHash(k.h, func(p page, off int) {
		c := p.client(off)
		if isDeviceOf(c, user) && len(c.ID) > len(user.ID) && c.ID != k.ID && t.owners.list[p.owner(off)].live {
			f(p, off, c)
		}
	})
}

// clearFenced takes out the row of another device of op's user and class whose epoch the proposer has fenced. Whatever comes of
// the registration itself, nobody delivers under that epoch.
func (t *Table) clearFenced(s *stripe, k key, op *Op) (Route, bool) {
	if !t.Settings.OnePerClass || op.Kind != Register || op.Fenced == 0 {
		return Route{}, false
	}
	class, ok := DeviceClass(k.ClientID)
	if !ok {
		return Route{}, false
	}
	var gone Route
	var found bool
	t.eachSibling(s, k, func(p page, off int, c wire.ClientID) {
		if other, _ := DeviceClass(c); other == class && p.value(off).epoch == op.Fenced {
			gone, found = route(p, off, t.owners.list[p.owner(off)]), true
		}
	})
	if !found {
		return Route{}, false
	}
	old := makeKey(gone.Client)
	pl, _ := s.find(old)
	ord := pl.page().owner(pl.off)
	s.remove(&t.w, old, pl)
	t.owners.drop(ord)
	t.rows--
	return gone, true
}

// crowded is the answer to a registration that the other devices of the user forbid; its Code is 0 if they do not. live: the
// client itself has a live row, which the registration would replace.
func (t *Table) crowded(s *stripe, k key, live bool) OpResult {
	if t.FeatureLevel < TopicFeatureLevel || live && !t.Settings.OnePerClass {
		return OpResult{}
	}
	class, ok := DeviceClass(k.ClientID)
	if !ok {
		return OpResult{}
	}
	n := 0
	var holder Route // of several, which only an older setting allows, the one that came first: pages lie differently elsewhere
	t.eachSibling(s, k, func(p page, off int, c wire.ClientID) {
		n++
		if !t.Settings.OnePerClass {
			return
		}
		if other, _ := DeviceClass(c); other == class && (holder.Epoch == 0 || p.value(off).epoch < holder.Epoch) {
			holder = route(p, off, t.owners.list[p.owner(off)])
		}
	})
	switch {
	case holder.Epoch != 0:
		code := OpClassHeld
		if t.Settings.Duplicate == DuplicateReject {
			code = OpRejected
		}
		return OpResult{Code: code, Epoch: holder.Epoch, Node: holder.Node, Incarnation: holder.Incarnation, HolderSession: holder.Session, HolderClient: holder.Client}
	case !live && n >= MaxDevices:
		return OpResult{Code: OpOverloaded}
	}
	return OpResult{}
}
