package mesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"imroute/mesh/wire"
)

const (
	maxNodeName = 255
	maxAddrLen  = 255
)

// serveJoin takes one request from a connection whose other end showed no certificate. Everything about it is bounded: how
// many are looked at, per second and concurrently, how long each may take, and how much is read.
func (m *Mesh) serveJoin(conn *quic.Conn) {
	addr := conn.RemoteAddr().String()
	select {
	case m.joining <- struct{}{}:
		defer func() { <-m.joining }()
	default:
		_ = conn.CloseWithError(closeBusy, "too many joins at once; try again in a few seconds")
		return
	}
	if !m.joins.Allow() {
		_ = conn.CloseWithError(closeBusy, "too many join requests; try again in a few seconds")
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.CallTimeout)
	defer cancel()
	stop := context.AfterFunc(conn.Context(), cancel)
	defer stop()
	reply, st, err := m.takeJoin(ctx, conn)
	if err == nil {
		err = sendJoinReply(st, reply)
	}
	if err != nil {
		if m.refusals.Allow() {
			m.log.Warn("join request of no use", "addr", addr, "err", err)
		}
		_ = conn.CloseWithError(closeProtocol, closeText(err))
		return
	}
	// The joiner closes when it has read the answer; closing here could overtake it.
	select {
	case <-conn.Context().Done():
	case <-ctx.Done():
		_ = conn.CloseWithError(closeBye, "")
	}
}

func (m *Mesh) takeJoin(ctx context.Context, conn *quic.Conn) (*JoinReply, *quic.Stream, error) {
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("no request: %w", err)
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	b, err := readSized(st, maxJoinRequest)
	if err != nil {
		return nil, nil, fmt.Errorf("no request: %w", err)
	}
	req, err := parseJoinRequest(b)
	if err != nil {
		return &JoinReply{Code: wire.BadRequest, Text: err.Error()}, st, nil
	}
	log := m.log.With("joiner", req.Node, "name", req.Name, "token", req.TokenID, "addr", conn.RemoteAddr().String())
	if m.cfg.Join == nil {
		log.Warn("join refused: this node takes none")
		return &JoinReply{Code: wire.Refused, Text: "this node takes no join requests"}, st, nil
	}
	reply, err := m.cfg.Join(ctx, req, conn.RemoteAddr())
	if err == nil && reply == nil {
		err = errors.New("no answer was made")
	}
	if err != nil {
		e := asWireError(err)
		reply = &JoinReply{Code: e.Code, Text: e.Text}
	}
	if reply.Code == wire.OK {
		log.Info("join granted")
	} else {
		log.Warn("join refused", "code", reply.Code.String(), "reason", reply.Text)
	}
	// Making the answer may have taken all of the time; it deserves some for its way.
	_ = st.SetWriteDeadline(time.Now().Add(m.cfg.DialTimeout))
	return reply, st, nil
}

func sendJoinReply(st *quic.Stream, reply *JoinReply) error {
	b, err := wire.Marshal(reply)
	if err != nil {
		return err
	}
	if len(b) > maxJoinReply {
		return fmt.Errorf("join answer of %d bytes: at most %d", len(b), maxJoinReply)
	}
	if err := writeSized(st, b); err != nil {
		return err
	}
	return st.Close()
}

// parseJoinRequest decodes and checks a request as far as that needs no knowledge of the cluster.
func parseJoinRequest(b []byte) (*JoinRequest, error) {
	var req JoinRequest
	if err := wire.Unmarshal(b, &req); err != nil {
		return nil, fmt.Errorf("join request: %w", err)
	}
	switch {
	case req.Node == 0:
		return nil, errors.New("join request: the node id is missing")
	case len(req.TokenID) != 2*tokenIDBytes || len(req.Secret) != tokenSecret:
		return nil, errors.New("join request: malformed token")
	case len(req.Name) > maxNodeName:
		return nil, fmt.Errorf("join request: the name is longer than %d bytes", maxNodeName)
	}
	for _, a := range []string{req.Addrs.Mesh, req.Addrs.ClientTCP, req.Addrs.ClientWS, req.Addrs.Admin} {
		if len(a) > maxAddrLen {
			return nil, fmt.Errorf("join request: an address is longer than %d bytes", maxAddrLen)
		}
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, fmt.Errorf("join request: certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("join request: the joiner does not hold the key it names: %w", err)
	}
	req.PublicKey = csr.PublicKey
	return &req, nil
}
