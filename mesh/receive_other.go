//go:build !linux

package mesh

import "net"

// received is conn as QUIC is to read it: itself, since only Linux hands over runs of datagrams at once.
func received(conn *net.UDPConn, _ func() uint64) net.PacketConn { return conn }
