package mesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// resolve looks a "host:port" up, choosing an address that the socket at local can reach.
func resolve(ctx context.Context, addr string, local *net.UDPAddr) (*net.UDPAddr, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: want host:port: %w", addr, err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	network := "ip"
	if local != nil && local.IP.To4() != nil {
		network = "ip4"
	} else if local != nil && local.IP != nil && !local.IP.IsUnspecified() {
		network = "ip6"
	}
	if host == "" {
		host = "localhost"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("address %q: no IP address found", addr)
	}
	best := ips[0]
	for _, ip := range ips {
		if ip.Unmap().Is4() { // names with both usually mean a dual-stack host whose IPv4 is the safe choice
			best = ip
			break
		}
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(best.Unmap(), uint16(port))), nil
}
