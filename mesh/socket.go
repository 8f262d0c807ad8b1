package mesh

import (
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
)

// PacketListener opens the socket a mesh, a join or a probe works with, bound to an address as "host:port"; an empty address
// takes any. The socket belongs to the caller, who closes it. Addresses it receives from must be *net.UDPAddr.
type PacketListener func(bind string) (net.PacketConn, error)

// listen opens a socket of l, or a UDP socket of the system if l is nil.
func (l PacketListener) listen(bind string) (net.PacketConn, error) {
	if l != nil {
		return l(bind)
	}
	var addr *net.UDPAddr
	if bind != "" {
		var err error
		if addr, err = net.ResolveUDPAddr("udp", bind); err != nil {
			return nil, err
		}
	}
	udp, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err // not udp, which would be a nil that is not nil
	}
	return udp, nil
}

// socket is a transport for dialling only, used before there is a mesh.
type socket struct {
	*quic.Transport
	conn net.PacketConn
}

func dialSocket(l PacketListener, bind string) (*socket, error) {
	conn, err := l.listen(bind)
	if err != nil {
		return nil, fmt.Errorf("bind %q: %w", bind, err)
	}
	return &socket{&quic.Transport{Conn: conn}, conn}, nil
}

func (s *socket) close() {
	_ = s.Transport.Close()
	_ = s.conn.Close()
}
