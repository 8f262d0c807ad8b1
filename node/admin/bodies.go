package admin

import "time"

// Request bodies that are not exported: Client's methods and the documents describe them.

type drainBody struct {
	Cancel bool `json:"cancel"`
}

type tokenBody struct {
	TTLSeconds uint32 `json:"ttl_seconds"` // 0: an hour
}

type transferBody struct {
	To string `json:"to"` // name or id; empty: the leader's choice
}

type checkBody struct {
	Fix bool `json:"fix"`
}

type kickBody struct {
	Tenant string `json:"tenant"`
	Reason string `json:"reason"`
}

type clientTokenBody struct {
	Client     string    `json:"client"`
	Tenant     string    `json:"tenant"`
	TTLSeconds uint32    `json:"ttl_seconds"`    // 0: an hour
	Send       *[]string `json:"send,omitempty"` // patterns, see gateway.Grants; absent: the token does not say
	Join       *[]string `json:"join,omitempty"`
}

// What holds where a request gives nothing.
const (
	DefaultTokenTTL    = time.Hour
	DefaultSendTimeout = 5 * time.Second
)
