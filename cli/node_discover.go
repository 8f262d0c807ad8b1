package cli

import (
	"log/slog"
	"net"

	"imroute/mesh/wire"
	"imroute/node"
	"imroute/node/discover"
)

// defaultData is where a node keeps its state that is started without configuration.
const defaultData = "imroute-data"

// checkDiscover finds what can be said about --discover and its companions, and completes a start without configuration.
func (o *nodeStartOptions) checkDiscover() error {
	switch o.discover {
	case "", node.DiscoverLAN, node.DiscoverOff:
	default:
		return usage("", "--discover %q: want lan or off", o.discover)
	}
	if o.secret != "" && o.secretFile != "" {
		return usage("", "--secret and --secret-file exclude each other")
	}
	if o.secretFile != "" {
		var err error
		if o.secret, err = readSecret(o.secretFile); err != nil {
			return err
		}
	}
	if o.discover != node.DiscoverLAN {
		if o.cluster+o.secret != "" || o.bootstrapExpect != 0 || o.discoverWait != 0 {
			return usage("add --discover lan", "--cluster, --secret, --bootstrap-expect and --discover-wait are for --discover lan")
		}
		// One node for oneself: --dev alone says it all.
		if o.dev && o.data == "" && len(o.join) == 0 {
			o.data = defaultData
			if member, err := isMember(o.data); err == nil && !member {
				o.bootstrap = true
				if o.name == "" {
					o.name = "n1"
				}
			}
		}
		return nil
	}
	if o.bootstrap || len(o.join) > 0 || o.joinToken != "" || o.joinTokenFile != "" {
		return usage("leave --bootstrap, --join and --token out", "--discover lan finds the cluster or founds it by itself")
	}
	if o.cluster != "" {
		if err := discover.CheckCluster(o.cluster); err != nil {
			return usage("", "--cluster: %w", err)
		}
	}
	if o.secret != "" {
		if err := discover.CheckSecret(o.secret); err != nil {
			return usage("", "--secret: %w", err)
		}
	}
	if o.data == "" {
		o.data = defaultData
	}
	return nil
}

// checkNewcomer says what a new folder needs for --discover lan. It needs no name: one is made of the machine's.
func (o *nodeStartOptions) checkNewcomer(self string) error {
	if o.cluster == "" || o.secret == "" {
		return usage("choose them once and give them to every node: "+self+" --discover lan --cluster NAME --secret \"$(openssl rand -base64 24)\"",
			"--discover lan needs --cluster and --secret: the same on all nodes of the cluster")
	}
	return nil
}

// leaveLoopback makes a node that shall be found on the LAN listen there, unless it was told where to listen.
func (o *nodeStartOptions) leaveLoopback(log *slog.Logger) {
	if o.discover != node.DiscoverLAN || o.dev || o.explicitBinds() {
		return
	}
	if _, ok := discover.LocalAddr(o.discoverInterface); !ok {
		log.Warn("this machine has no address on a network: only nodes on this machine are found")
		return
	}
	o.lan = true
	if o.clientCert == "" {
		log.Warn("clients on the network are not encrypted: give --client-cert and --client-key, or --client 127.0.0.1:7901 to take none from there")
	}
}

// onLAN moves the listeners that others need to the machine's address on the LAN. The admin API stays on loopback: beyond,
// it wants TLS.
func onLAN(a wire.Addrs, interfaces []string) wire.Addrs {
	ip, ok := discover.LocalAddr(interfaces)
	if !ok {
		return a
	}
	move := func(addr string) string {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return addr
		}
		return net.JoinHostPort(ip.String(), port)
	}
	a.Mesh, a.ClientTCP, a.ClientWS = move(a.Mesh), move(a.ClientTCP), move(a.ClientWS)
	return a
}
