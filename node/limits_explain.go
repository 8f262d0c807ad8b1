package node

import (
	"fmt"
	"math"

	"go.yaml.in/yaml/v3"

	"imroute/node/gateway"
)

// knownLimits is what limitOf knows.
const knownLimits = "known are client-rate, client-bytes, tenant-rate, tenant-bytes, tenant-sessions, tenant-logins"

// limitOf is the limit that a file of tenants calls by that name; nil: there is none.
func limitOf(l *gateway.Limits, key string) *int {
	switch key {
	case "client-rate":
		return &l.ClientRate
	case "client-bytes":
		return &l.ClientBytes
	case "tenant-rate":
		return &l.TenantRate
	case "tenant-bytes":
		return &l.TenantBytes
	case "tenant-sessions":
		return &l.TenantSessions
	case "tenant-logins":
		return &l.TenantLogins
	}
	return nil
}

// explainTenants says in the words of whoever wrote a file of tenants what is wrong with it: the line, the tenant and what may stand
// there. nil: nothing that it knows of.
func explainTenants(b []byte) error {
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil || doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want tenants with their limits, such as \"acme: {client-rate: 100}\"", top.Line)
	}
	if key, first := repeated(top); key != nil {
		return fmt.Errorf("line %d: tenant %.80q is already defined at line %d", key.Line, key.Value, first)
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		name, own := top.Content[i], aliased(top.Content[i+1])
		if line, text := explainLimits(own); text != "" {
			return fmt.Errorf("line %d: tenant %.80q: %s", line, name.Value, text)
		}
	}
	return nil
}

// explainLimits says what is wrong with one tenant's limits, and where; "": nothing.
func explainLimits(own *yaml.Node) (line int, text string) {
	switch {
	case own.Tag == "!!null":
		return 0, ""
	case own.Kind != yaml.MappingNode:
		return own.Line, "want its limits; " + knownLimits
	}
	if key, first := repeated(own); key != nil {
		return key.Line, fmt.Sprintf("%.80q is already defined at line %d", key.Value, first)
	}
	for i := 0; i+1 < len(own.Content); i += 2 {
		key, value := own.Content[i], aliased(own.Content[i+1])
		var n *int
		var f float64
		switch {
		case key.Tag == "!!merge":
		case limitOf(new(gateway.Limits), key.Value) == nil:
			return key.Line, fmt.Sprintf("unknown limit %.80q; %s", key.Value, knownLimits)
		case value.Kind != yaml.ScalarNode:
			return value.Line, key.Value + ": want a whole number, 0 for no limit"
		case value.Decode(&n) != nil, value.Tag == "!!float" && value.Decode(&f) == nil && f != math.Trunc(f): // which would be cut off
			return value.Line, fmt.Sprintf("%s is %.80q: want a whole number, 0 for no limit", key.Value, value.Value)
		}
	}
	return 0, ""
}

// repeated finds a key that a mapping has twice, and the line of the first.
func repeated(m *yaml.Node) (key *yaml.Node, first int) {
	seen := map[string]int{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k := m.Content[i]
		if line, twice := seen[k.Value]; twice {
			return k, line
		}
		seen[k.Value] = k.Line
	}
	return nil, 0
}

func aliased(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}
