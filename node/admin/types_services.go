package admin

import "context"

// ServiceRow is one service: which nodes have instances of it, and how many they say that is.
type ServiceRow struct {
	Service   string   `json:"service"`
	Tenant    string   `json:"tenant"`
	Nodes     []string `json:"nodes"` // by name; agreed by the cluster. A node stays for a moment after its last instance left
	Instances uint32   `json:"instances"`
	Open      uint32   `json:"open"` // requests that instances have and have not answered
}

// ServicePage is a part of the services of a tenant, by name.
type ServicePage struct {
	Services []ServiceRow `json:"services"`
	Next     string       `json:"next"`   // cursor of the next page; empty: this was the last
	Errors   []NodeError  `json:"errors"` // nodes that did not answer, whose instances are not counted
}

// PresenceCount is how many are online.
type PresenceCount struct {
	Tenant  *string        `json:"tenant,omitempty"` // the only one that was counted; none: all
	Clients uint32         `json:"clients"`          // client ids that are online, devices each by itself: the routes of the asked node's table
	Users   uint32         `json:"users"`            // users that are online: all devices of a user count once, on whichever nodes they are
	Nodes   []PresenceNode `json:"nodes"`            // by name
	Index   uint64         `json:"index,string"`     // of the table that was counted
}

// PresenceNode is one node's part of it.
type PresenceNode struct {
	Node    string `json:"node"`
	Clients uint32 `json:"clients"`
	Users   uint32 `json:"users"` // who has a device there: one with devices on several nodes counts at each, so these may add up to more than there are
}

// PresenceBackend is the part of Backend that says what is there: instances of services, and people.
type PresenceBackend interface {
	// Services reads one page of a tenant's services, with every instance that was acknowledged before the call; it needs a quorum.
	Services(ctx context.Context, q GroupQuery) (ServicePage, error)
	// PresenceCount counts who is online in a tenant (nil: in all), in this node's table; with millions of routes the answer may be
	// some seconds old.
	PresenceCount(ctx context.Context, tenant *string) (PresenceCount, error)
}
