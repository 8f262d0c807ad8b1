package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"imroute/mesh/wire"
	"imroute/node/gateway"
	"imroute/raftfsm"
)

// Limits are what clients and tenants may use; see gateway.Limits for what is counted where.
type Limits struct {
	gateway.Limits               // of every client and every tenant that File does not name
	File           string        // tenants with limits of their own, as ParseTenantLimits reads them; empty: none
	Burst          time.Duration // what may be saved up is a rate times this; default 1 s

	tenants map[string]gateway.Limits // what stands in File
}

// validate reads File.
func (l *Limits) validate() error {
	orDefault(&l.Burst, time.Second)
	if l.Burst < 500*time.Millisecond || l.Burst > time.Minute {
		return fmt.Errorf("limit-burst is %v: want 500ms to 1m", l.Burst)
	}
	if err := l.Limits.Validate(); err != nil {
		return err
	}
	if l.File == "" {
		return nil
	}
	b, err := os.ReadFile(l.File)
	if err != nil {
		return fmt.Errorf("tenants: %w", err)
	}
	if l.tenants, err = ParseTenantLimits(b, l.Limits); err != nil {
		return fmt.Errorf("tenants: %s: %w", l.File, err)
	}
	return nil
}

// maxTenantsFile is the largest file of tenants in bytes.
const maxTenantsFile = 8 << 20

// ParseTenantLimits reads the limits of tenants from YAML: a mapping of tenants to what differs from rest, which is what
// everybody else has. 0 means no limit; the tenant without a name is "".
//
//	acme:
//	  tenant-rate: 5000
//	  client-rate: 100
//	"":
//	  client-rate: 0
func ParseTenantLimits(b []byte, rest gateway.Limits) (map[string]gateway.Limits, error) {
	if len(b) > maxTenantsFile {
		return nil, fmt.Errorf("larger than %d bytes", maxTenantsFile)
	}
	if err := explainTenants(b); err != nil {
		return nil, err
	}
	var file map[string]map[string]*int
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	out := make(map[string]gateway.Limits, len(file))
	for name, own := range file {
		if err := (wire.ClientID{Tenant: name, ID: "x"}).Validate(); err != nil {
			return nil, fmt.Errorf("tenant %.80q: %w", name, err)
		}
		l := rest
		for key, n := range own {
			to := limitOf(&l, key)
			if to == nil { // by way of an alias: explainTenants names the others
				return nil, fmt.Errorf("tenant %.80q: unknown limit %.80q; %s", name, key, knownLimits)
			}
			if n != nil {
				*to = *n
			}
		}
		if err := l.Validate(); err != nil {
			return nil, fmt.Errorf("tenant %q: %w", name, err)
		}
		out[name] = l
	}
	return out, nil
}

// limiting is the limits as the gateway takes them.
func (n *Node) limiting() gateway.Limiting {
	l := &n.cfg.Limits
	return gateway.Limiting{Limits: l.Limits, Tenants: l.tenants, Burst: l.Burst, Nodes: n.taking}
}

// taking is how many nodes take clients, and so share what a tenant may use.
func (n *Node) taking() (count int) {
	for _, node := range n.fsm.Nodes() {
		if node.State == raftfsm.Up {
			count++
		}
	}
	return count
}
