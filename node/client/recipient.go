package client

import "imroute/mesh/wire"

// Address says who a message is for. The zero Address is nobody.
type Address struct {
	kind wire.Kind
	to   string

	// of the answer to a request: its id and, if it failed, how
	re, reInstance uint64
	fault          uint32
}

// ToClient is one client id. One without a "/" stands for all devices of that user as well.
func ToClient(id string) Address { return Address{kind: wire.ToClient, to: id} }

// ToGroup is every member of a group, this Client too if it is one.
func ToGroup(group string) Address { return Address{kind: wire.ToGroup, to: group} }

// ToAll is every client of the tenant.
func ToAll() Address { return Address{kind: wire.ToAll} }

// ToOthers is every client of the tenant but this one.
func ToOthers() Address { return Address{kind: wire.ToOthers} }

// ToPrefix is every client of the tenant whose id begins with prefix.
func ToPrefix(prefix string) Address { return Address{kind: wire.ToPrefix, to: prefix} }

// ToUser is every device of a user (user/device), and the client of just that id.
func ToUser(user string) Address { return Address{kind: wire.ToUser, to: user} }

func (a Address) String() string {
	if a.kind == wire.ToClient {
		return a.to
	}
	return a.kind.String() + " " + a.to
}

// messageID is a message's id as its recipients see it.
func (c *Client) messageID(to Address, counter uint64) wire.MessageID {
	sender := c.Instance()
	if to.kind == wire.ToService {
		sender = c.instance
	}
	return wire.MessageID{Instance: wire.CastSender(sender, to.kind, to.to), Counter: counter}
}
