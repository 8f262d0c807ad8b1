package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"imroute/mesh/wire"
	"imroute/raftfsm"
	"imroute/raftfsm/store"
)

func countVoters(config []store.Member) (n int) {
	for _, m := range config {
		if m.Voter {
			n++
		}
	}
	return n
}

func (n *Node) isVoter(id wire.NodeID) bool {
	config, _, err := n.store.Members()
	if err != nil {
		return false
	}
	for _, m := range config {
		if m.ID == id {
			return m.Voter
		}
	}
	return false
}

// promoteSuccessor makes a voter of a node that is up, for the last voter that wants to leave.
func (n *Node) promoteSuccessor(ctx context.Context) error {
	for _, node := range n.fsm.Nodes() {
		if node.ID == n.id || node.State == raftfsm.Down {
			continue
		}
		if err := n.store.Promote(ctx, node.ID); err != nil {
			return fmt.Errorf("promote %s to hand over to: %w", node.Name, err)
		}
		return nil
	}
	return errors.New("no other node is up to hand over to")
}

// adminTLS is how the admin API is encrypted; nil: not at all.
func (n *Node) adminTLS() (*tls.Config, error) {
	c := n.cfg.AdminTLS
	switch {
	case c.CertFile != "" || c.KeyFile != "":
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("admin TLS certificate: %w", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
	case c.NodeCert:
		return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: n.shownAdminCert}, nil
	}
	return nil, nil
}
