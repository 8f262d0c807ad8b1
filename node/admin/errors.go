package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"imroute/mesh/wire"
)

// Status is the kind of an error: what a program decides by. It is the "reason" of the JSON form and picks the HTTP
// status. Words are only ever added; a client treats one that it does not know by its HTTP status.
type Status string

// The statuses, each with its HTTP status.
const (
	StatusBadRequest   Status = "bad_request"        // 400: the request is wrong; the message names the field
	StatusUnauthorized Status = "unauthorized"       // 401: no token, or not the right one
	StatusForbidden    Status = "forbidden"          // 403: not allowed, whoever asks
	StatusNotFound     Status = "not_found"          // 404: no such node, route, token or path
	StatusMethod       Status = "method_not_allowed" // 405
	StatusConflict     Status = "conflict"           // 409: refused in this state of affairs
	StatusTooLarge     Status = "too_large"          // 413: body or payload
	StatusOverloaded   Status = "overloaded"         // 429: later
	StatusInternal     Status = "internal"           // 500: a fault of the node; its log says more
	StatusUnavailable  Status = "unavailable"        // 503: no quorum, or not ready; nothing was changed
	StatusTimeout      Status = "timeout"            // 504: the outcome is not known
	StatusUnreachable  Status = "unreachable"        // made by Client: no node answered
)

// Error is an error of the API, the same on both sides of the wire.
type Error struct {
	Code   wire.Code // more exact than Status where there is one; wire.None otherwise
	Status Status    // empty: follows from Code
	Text   string    // what went wrong
	Hint   string    // what to do next; may be empty
	Err    error     // cause, on the side that made the error; never sent
}

// Errorf makes an Error whose Code is the usual one of the status.
func Errorf(s Status, format string, args ...any) *Error {
	return &Error{Code: statusCode(s), Status: s, Text: fmt.Sprintf(format, args...)}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error is the text, and the hint behind it.
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		if text = string(e.Status); e.Code != wire.None {
			text = e.Code.String()
		}
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsNotFound: there is no such node, route, token or path.
func IsNotFound(err error) bool { return is(err, StatusNotFound) }

// IsUnavailable: the cluster has no quorum, or the nodes asked are not ready. Nothing was changed.
func IsUnavailable(err error) bool { return is(err, StatusUnavailable) }

// IsTimeout: the outcome is not known. It also holds for a context that ended while Client waited.
func IsTimeout(err error) bool {
	return is(err, StatusTimeout) || errors.Is(err, context.DeadlineExceeded)
}

// IsConflict: refused in this state of affairs.
func IsConflict(err error) bool { return is(err, StatusConflict) }

// IsBadRequest: the request itself is wrong.
func IsBadRequest(err error) bool { return is(err, StatusBadRequest) || is(err, StatusTooLarge) }

// IsUnauthorized: the token is missing or wrong, or what was asked is not allowed.
func IsUnauthorized(err error) bool { return is(err, StatusUnauthorized) || is(err, StatusForbidden) }

// IsUnreachable: no node answered at any address.
func IsUnreachable(err error) bool { return is(err, StatusUnreachable) }

func is(err error, s Status) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == s
}

// statusHTTP is the HTTP status of each Status that goes over the wire.
var statusHTTP = map[Status]int{
	StatusBadRequest: http.StatusBadRequest, StatusUnauthorized: http.StatusUnauthorized, StatusForbidden: http.StatusForbidden,
	StatusNotFound: http.StatusNotFound, StatusMethod: http.StatusMethodNotAllowed, StatusConflict: http.StatusConflict,
	StatusTooLarge: http.StatusRequestEntityTooLarge, StatusOverloaded: http.StatusTooManyRequests,
	StatusInternal: http.StatusInternalServerError, StatusUnavailable: http.StatusServiceUnavailable,
	StatusTimeout: http.StatusGatewayTimeout,
}

// statusOfHTTP is for answers that are not ours, say a proxy's.
func statusOfHTTP(code int) Status {
	for s, c := range statusHTTP {
		if c == code {
			return s
		}
	}
	switch {
	case code == http.StatusBadGateway:
		return StatusUnavailable
	case code >= 500:
		return StatusInternal
	}
	return StatusBadRequest
}

// statusOf is the Status of a Code.
func statusOf(c wire.Code) Status {
	switch c {
	case wire.BadRequest, wire.ProtocolError, wire.BadVersion:
		return StatusBadRequest
	case wire.Forbidden, wire.BadToken, wire.TokenExpired:
		return StatusForbidden
	case wire.Offline, wire.NotMember:
		return StatusNotFound
	case wire.NotOwner, wire.BadIncarnation, wire.Refused, wire.AlreadyOnline, wire.OutOfOrder, wire.Replaced, wire.Superseded:
		return StatusConflict
	case wire.TooLarge:
		return StatusTooLarge
	case wire.Overloaded, wire.Busy, wire.RateLimited:
		return StatusOverloaded
	case wire.Unavailable, wire.NotLeader, wire.NotReady, wire.NoQuorum, wire.Draining, wire.LeaseLost, wire.ShuttingDown:
		return StatusUnavailable
	case wire.Timeout, wire.Unknown, wire.LoginTimeout, wire.ConnectionLost:
		return StatusTimeout
	}
	return StatusInternal
}

// statusCode is the Code that an Error of a Status has when nothing more exact is known.
func statusCode(s Status) wire.Code {
	switch s {
	case StatusBadRequest, StatusMethod:
		return wire.BadRequest
	case StatusUnauthorized, StatusForbidden:
		return wire.Forbidden
	case StatusConflict:
		return wire.Refused
	case StatusTooLarge:
		return wire.TooLarge
	case StatusOverloaded:
		return wire.Overloaded
	case StatusUnavailable:
		return wire.Unavailable
	case StatusTimeout:
		return wire.Timeout
	case StatusInternal:
		return wire.Internal
	}
	return wire.None
}

// hints are for statuses whose makers gave none.
var hints = map[wire.Code]string{
	wire.Unavailable: "the cluster has no quorum or this node cannot reach it: see imctl cluster status",
	wire.NoQuorum:    "start enough voters to have a majority: see imctl cluster status",
	wire.NotReady:    "the node is starting or catching up: try again in a moment",
	wire.NotLeader:   "a leader is being elected: try again in a moment",
	wire.Timeout:     "the outcome is not known: look before you repeat it, or give more time with --timeout",
	wire.Unknown:     "the outcome is not known: look before you repeat it",
}

// readHint is for questions that ended in waiting: there is no outcome to be looked for.
const readHint = "nothing was changed: try again, or give more time with --timeout"

// asError makes an *Error of whatever a backend returned; the original is its cause. Text of unknown errors is not for
// strangers, but those who may ask are operators: it is shown.
func asError(err error) *Error {
	var e *Error
	var w *wire.Error
	switch {
	case errors.As(err, &e):
		c := *e
		e = &c
		if e.Status == "" {
			e.Status = statusOf(e.Code)
		}
		if e.Code == wire.None {
			e.Code = statusCode(e.Status)
		}
	case errors.As(err, &w):
		e = &Error{Code: w.Code, Status: statusOf(w.Code), Text: w.Text, Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		e = &Error{Code: wire.Timeout, Status: StatusTimeout, Text: "no answer in time", Err: err}
	case errors.Is(err, context.Canceled):
		e = &Error{Code: wire.ShuttingDown, Status: StatusUnavailable, Text: "the request was abandoned", Err: err}
	default:
		e = &Error{Code: wire.Internal, Status: StatusInternal, Text: err.Error(), Err: err}
	}
	if statusHTTP[e.Status] == 0 {
		e.Status = StatusInternal // a word made up by a backend, or one kept for Client
	}
	if e.Text == "" {
		e.Text = e.Code.String()
	}
	if e.Hint == "" {
		e.Hint = hints[e.Code]
	}
	return e
}

// errorBody is the JSON form.
type errorBody struct {
	Error struct {
		Code    wire.Code `json:"code"`
		Reason  Status    `json:"reason"`
		Message string    `json:"message"`
		Hint    string    `json:"hint,omitempty"`
	} `json:"error"`
}

func (e *Error) body() (b errorBody) {
	b.Error.Code, b.Error.Reason, b.Error.Message, b.Error.Hint = e.Code, e.Status, e.Text, e.Hint
	return b
}
