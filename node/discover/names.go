package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// DNSPrefix marks a --join entry that is a DNS name: dns:NAME or dns:NAME:PORT.
	DNSPrefix = "dns:"
	// srvService is the service looked for under a plain name, as in _imroute._udp.example.com.
	srvService, srvProto = "imroute", "udp"
	defaultMeshPort      = 7900
	maxResolved          = 256 // addresses taken of one name
)

// Resolver is what of net.Resolver is used.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// CheckJoin tells what is wrong with a --join entry: "host:port", "dns:NAME" or "dns:NAME:PORT".
func CheckJoin(entry string) error {
	_, _, _, err := parseJoin(entry)
	return err
}

func parseJoin(entry string) (host string, port int, isDNS bool, err error) {
	rest, isDNS := strings.CutPrefix(entry, DNSPrefix)
	bad := func(what string) error {
		return fmt.Errorf("address %q: %s: want HOST:PORT, dns:NAME or dns:NAME:PORT", entry, what)
	}
	host, service := rest, ""
	if !isDNS || strings.Contains(rest, ":") {
		if host, service, err = net.SplitHostPort(rest); err != nil {
			return "", 0, isDNS, bad("no port")
		}
	}
	if isDNS && host == "" {
		return "", 0, isDNS, bad("no name")
	}
	if service != "" {
		if port, err = strconv.Atoi(service); err != nil && !isDNS {
			return host, 0, isDNS, nil // a service's name; the mesh looks it up
		}
		if err != nil || port < 1 || port > 65535 {
			return "", 0, isDNS, bad("the port is no number from 1 to 65535")
		}
	} else if !isDNS {
		return "", 0, isDNS, bad("no port")
	}
	return host, port, isDNS, nil
}

// Expand makes the entries of --join into addresses "host:port", in order and each once: a dns: entry into all targets of
// its SRV records (_imroute._udp.NAME, or NAME itself if it begins with an underscore), by priority, and all its A and
// AAAA records with the port given, or 7900. Names are looked up at each call, since they change. What cannot be looked up
// is in err; what could is returned nevertheless.
func Expand(ctx context.Context, r Resolver, entries []string) (addrs []string, err error) {
	var errs []error
	seen := map[string]bool{}
	add := func(addr string) {
		if !seen[addr] && len(seen) < maxResolved {
			seen[addr] = true
			addrs = append(addrs, addr)
		}
	}
	for _, e := range entries {
		host, port, isDNS, err := parseJoin(e)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !isDNS:
			add(e)
		default:
			found, err := lookup(ctx, r, host, port)
			for _, addr := range found {
				add(addr)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", e, err))
			}
		}
	}
	return addrs, errors.Join(errs...)
}

// lookup fails only if there is neither.
func lookup(ctx context.Context, r Resolver, name string, port int) (addrs []string, err error) {
	service, proto := srvService, srvProto
	if strings.HasPrefix(name, "_") {
		service, proto = "", "" // a full name of SRV records
	}
	_, records, srvErr := r.LookupSRV(ctx, service, proto, name)
	for _, s := range records {
		if target := strings.TrimSuffix(s.Target, "."); target != "" && s.Port != 0 {
			addrs = append(addrs, net.JoinHostPort(target, strconv.Itoa(int(s.Port))))
		}
	}
	if service == "" {
		return addrs, srvErr
	}
	if port == 0 {
		port = defaultMeshPort
	}
	ips, ipErr := r.LookupNetIP(ctx, "ip", name)
	for _, ip := range ips {
		addrs = append(addrs, net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(port)))
	}
	if len(addrs) == 0 {
		if ipErr == nil {
			ipErr = errors.New("it has no A, AAAA or SRV records")
		}
		return nil, ipErr
	}
	return addrs, nil
}
