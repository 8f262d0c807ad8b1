package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"imroute/mesh/wire"
)

// devPlan is one node of "imctl dev" before it is started.
type devPlan struct {
	name  string
	addrs wire.Addrs
	old   bool // its data folder has state: it comes back as itself
}

// planDev decides which nodes to start and where they listen: those in the folder on their former ports, others from
// base on, taken ports replaced by free ones.
func planDev(data string, nodes int, given bool, base int, ports *portPicker) ([]devPlan, error) {
	former, err := readCluster(filepath.Join(data, devClusterTag))
	if err != nil {
		return nil, err
	}
	old := 0
	for ; ; old++ {
		member, err := isMember(filepath.Join(data, devName(old)))
		if err != nil {
			return nil, fail("data", "check --data", "%w", err)
		}
		if !member {
			break
		}
	}
	if old > nodes && given {
		return nil, usage("start them all, or let some leave first with \"imctl node leave\"", "--nodes %d, but there are %d nodes in %s", nodes, old, data)
	}
	if old > 0 && !given {
		nodes = old
	}
	plan := make([]devPlan, nodes)
	for i := range plan {
		p := &plan[i]
		p.name, p.old, p.addrs = devName(i), i < old, preferredAddrs(base, i)
		for _, n := range former.Nodes {
			if p.old && n.Name == p.name && n.Mesh != "" && n.ClientTCP != "" && n.ClientWS != "" && n.Admin != "" {
				p.addrs = n.Addrs
			}
		}
		ports.want(p.addrs)
	}
	for i := range plan {
		if plan[i].addrs, err = ports.node(plan[i].addrs); err != nil {
			return nil, fail("ports", "choose another --port-base", "%w", err)
		}
	}
	return plan, nil
}

func devName(i int) string { return "n" + strconv.Itoa(i+1) }

// readCluster reads a former cluster.json; none is an empty one.
func readCluster(path string) (devCluster, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return devCluster{}, nil
	}
	if err != nil {
		return devCluster{}, fail("data", "check --data", "%w", err)
	}
	var c devCluster
	if err := json.Unmarshal(b, &c); err != nil {
		return devCluster{}, fail("data", "remove that file: only the former ports are lost", "%s is damaged: %w", path, err)
	}
	return c, nil
}

func encodeCluster(c devCluster) ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cluster.json: %w", err)
	}
	return append(b, '\n'), nil
}
