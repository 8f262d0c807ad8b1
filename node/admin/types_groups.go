package admin

// GroupRow is one group: which nodes have members of it, and how many they say that is.
type GroupRow struct {
	Group   string   `json:"group"`
	Tenant  string   `json:"tenant"`
	Nodes   []string `json:"nodes"` // by name; agreed by the cluster. A node stays for a moment after its last member left
	Members uint32   `json:"members"`
}

// GroupPage is a part of the groups of a tenant, by name.
type GroupPage struct {
	Groups []GroupRow  `json:"groups"`
	Next   string      `json:"next"`   // cursor of the next page; empty: this was the last
	Errors []NodeError `json:"errors"` // nodes that did not answer, whose members are not counted
}

// NodeError says why a node did not answer.
type NodeError struct {
	Node  string `json:"node"`
	Error string `json:"error"`
}

// GroupMember is one session in a group.
type GroupMember struct {
	Client string `json:"client"`
	Node   string `json:"node"`
}

// GroupMembers is a part of the members of a group, by client id, as the nodes that have some say themselves.
type GroupMembers struct {
	Group   string        `json:"group"`
	Tenant  string        `json:"tenant"`
	Count   uint32        `json:"count"` // of all members, not of this page
	Members []GroupMember `json:"members"`
	Next    string        `json:"next"`   // cursor of the next page; empty: this was the last
	Errors  []NodeError   `json:"errors"` // nodes that did not answer
}

// GroupClosed says how many members were removed.
type GroupClosed struct {
	Group  string      `json:"group"`
	Tenant string      `json:"tenant"`
	Count  uint32      `json:"count"`
	Errors []NodeError `json:"errors"` // nodes that did not answer: their members are still there
}

type groupCloseBody struct {
	Tenant string `json:"tenant,omitempty"`
	Reason string `json:"reason,omitempty"`
}
