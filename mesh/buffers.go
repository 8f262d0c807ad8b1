package mesh

import (
	"fmt"
	"net"
)

// wantBuffer is what quic-go asks the kernel for, in bytes, and what keeps bursts of a busy mesh from being dropped.
const wantBuffer = 7 << 20

// BufferSizes is the socket's receive and send buffer in bytes, as the kernel granted them; 0 where it does not tell. The
// mesh asks for 7 MiB each when it opens.
func (m *Mesh) BufferSizes() (receive, send int) {
	m.mu.Lock()
	udp, ok := m.udp.(*net.UDPConn)
	m.mu.Unlock()
	if !ok {
		return 0, 0
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return 0, 0
	}
	return socketBuffers(raw)
}

// BufferWarning says what to do when the kernel granted less than the mesh wants; empty if all is well or not known.
func (m *Mesh) BufferWarning() string {
	receive, send := m.BufferSizes()
	if receive >= wantBuffer && send >= wantBuffer || receive == 0 {
		return ""
	}
	return fmt.Sprintf("UDP buffers are small (receive %d KiB, send %d KiB, wanted %d KiB): packets may be lost under load; "+
		"on Linux: sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d", receive>>10, send>>10, wantBuffer>>10, wantBuffer, wantBuffer)
}
