package node

import (
	"slices"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// allowedDevices leaves in list those of a user's devices that whoever hears of the message as o may send to by their own ids: a
// token for client:dora is none for dora/phone, whom it does not reach by another name either. Operators and back ends may send
// to all. It works in place and allocates nothing.
func allowedDevices(o castOrigin, list []raftfsm.Device) []raftfsm.Device {
	if len(list) == 0 {
		return list
	}
	s, ok := o.(interface{ Grants() *gateway.Grants })
	if !ok {
		return list
	}
	g := s.Grants()
	if g == nil {
		return list
	}
	return slices.DeleteFunc(list, func(d raftfsm.Device) bool {
		may, decided := g.Send(wire.ToClient, d.Client.ID)
		return decided && !may
	})
}
