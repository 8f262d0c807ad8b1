package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"imroute/mesh/wire"
)

// Peer says what a login met that did not come to an answer of a node.
type Peer uint8

const (
	PeerNode    Peer = iota // a node, or nothing: what the Code says is all that is known
	PeerMute                // something took the connection and closed it again without a word
	PeerForeign             // something answered that is no client port: the admin API, another server, TLS where none is wanted
)

// foreignError is the error of a dial that met something else than a client port.
type foreignError struct{ text string }

func (e *foreignError) Error() string { return e.text }

// dialEnding puts the error of a dial into an ending.
func dialEnding(a address, err error) *ending {
	e := &ending{code: wire.ConnectionLost, text: err.Error()}
	var foreign *foreignError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &foreign):
		e.peer, e.text = PeerForeign, foreign.text
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		e.peer, e.text = PeerForeign, fmt.Sprintf("%s does not speak TLS", a)
	case a.webSocket() && strings.Contains(err.Error(), "malformed HTTP"): // net/http has no type for it
		e.peer, e.text = PeerForeign, fmt.Sprintf("%s does not speak WebSocket", a)
	case silentEnd(err):
		e.peer = PeerMute
	}
	return e
}

// unanswered is lost for a connection to a over which nothing was read yet.
func unanswered(a address, err error) *ending {
	e := lost(err)
	switch {
	case e.code == wire.ProtocolError:
		e.peer, e.text = PeerForeign, fmt.Sprintf("%s does not speak the client protocol: is it the admin address?", a)
	case silentEnd(err):
		e.peer, e.text = PeerMute, fmt.Sprintf("%s closed the connection without an answer to the login", a)
	}
	return e
}

func silentEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
