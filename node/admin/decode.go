package admin

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"imroute/mesh/wire"
)

// body reads the request's body as one JSON object into v (a pointer to a struct). No body counts as {}. Whatever is wrong
// is said with the field's name.
func (r *request) body(v any) error {
	limit := int64(2*r.s.cfg.MaxPayload + 64<<10)
	raw, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return Errorf(StatusTooLarge, "the body is larger than %d bytes", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Errorf(StatusBadRequest, "the body did not arrive within %v", r.s.cfg.HeaderTimeout)
	case err != nil:
		return Errorf(StatusBadRequest, "the body cannot be read: %v", err)
	}
	// The deadline that ServeHTTP set has done its work; left in place it would make a long call look abandoned. An error
	// means that the connection is gone, which the answer will notice.
	_ = http.NewResponseController(r.w).SetReadDeadline(time.Time{})
	return decodeBody(raw, v)
}

// query reads the parameters behind "?"; names that are not allowed are refused.
func (r *request) query(allowed ...string) (url.Values, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Errorf(StatusBadRequest, "the query cannot be read: %v", err)
	}
	for name, values := range v {
		if !slices.Contains(allowed, name) {
			e := Errorf(StatusBadRequest, "parameter %q is not known here", name)
			if len(allowed) > 0 {
				_ = e.WithHint("known are %s", strings.Join(allowed, ", "))
			}
			return nil, e
		}
		if len(values) > 1 {
			return nil, Errorf(StatusBadRequest, "parameter %q is given twice", name)
		}
	}
	return v, nil
}

// empty is for endpoints that take neither parameters nor fields.
func (r *request) empty() error {
	if _, err := r.query(); err != nil {
		return err
	}
	return r.body(&struct{}{})
}

func boolParam(v url.Values, name string) (bool, error) {
	if !v.Has(name) {
		return false, nil
	}
	switch s := v.Get(name); s {
	case "true", "1", "":
		return true, nil
	case "false", "0":
		return false, nil
	default:
		return false, Errorf(StatusBadRequest, "parameter %q is %q: want true or false", name, s)
	}
}

func limitParam(v url.Values) (int, error) {
	if !v.Has("limit") {
		return DefaultPage, nil
	}
	n, err := strconv.Atoi(v.Get("limit"))
	if err != nil || n < 1 || n > MaxPage {
		return 0, Errorf(StatusBadRequest, "parameter %q is %q: want a number from 1 to %d", "limit", v.Get("limit"), MaxPage)
	}
	return n, nil
}

func tenantParam(v url.Values) *string {
	if !v.Has("tenant") {
		return nil
	}
	t := v.Get("tenant")
	return &t
}

// clientID checks an id; where says which part of the request it came from.
func clientID(where, tenant, id string) (wire.ClientID, error) {
	c := wire.ClientID{Tenant: tenant, ID: id}
	if err := (wire.ClientID{Tenant: tenant, ID: "x"}).Validate(); err != nil { // not the fault of what the id came from
		return c, Errorf(StatusBadRequest, "the tenant %.80q is not valid: %s", tenant, strings.TrimPrefix(err.Error(), "tenant: ")).WithHint("a tenant has at most %d bytes of UTF-8, without ':', '/', '*' and control characters", wire.MaxTenant)
	}
	if err := c.Validate(); err != nil {
		return c, Errorf(StatusBadRequest, "%s: %v", where, err)
	}
	return c, nil
}

func ttl(s uint32) (time.Duration, error) {
	d := time.Duration(s) * time.Second
	if d == 0 {
		d = DefaultTokenTTL
	}
	if d > MaxTokenTTL {
		return 0, Errorf(StatusBadRequest, "field %q: %d is too long: at most %d", "ttl_seconds", s, int(MaxTokenTTL.Seconds()))
	}
	return d, nil
}

// message checks a SendRequest field by field.
func (q *SendRequest) message(maxPayload int) (m Message, err error) {
	if q.Kind != "" {
		if m.Kind, err = wire.ParseKind(q.Kind); err != nil {
			return m, Errorf(StatusBadRequest, "field %q: %v", "kind", err)
		}
	}
	if q.To == "" && m.Kind != wire.ToAll && m.Kind != wire.ToOthers {
		return m, Errorf(StatusBadRequest, `field "to" is missing`).WithHint("name the %s to send to", m.Kind)
	}
	if m.Kind == wire.ToClient {
		m.To, err = clientID(`field "to"`, q.Tenant, q.To)
	} else {
		m.To, err = clientID(`field "tenant"`, q.Tenant, "x")
		m.To.ID = q.To
		if bad := m.Kind.ValidateTo(q.To); err == nil && bad != nil {
			err = Errorf(StatusBadRequest, "field %q: %v", "to", bad)
		}
	}
	if err != nil {
		return m, err
	}
	if q.From != "" {
		if _, err = clientID(`field "from"`, q.Tenant, q.From); err != nil {
			return m, err
		}
	}
	m.From = q.From
	if m.Payload, err = q.payload(maxPayload); err != nil {
		return m, err
	}
	switch q.Ack {
	case AckNone:
		m.Ack = wire.AckNone
	case AckOwner, "":
		m.Ack = wire.AckOwner
	case AckClient:
		m.Ack = wire.AckClient
	default:
		return m, Errorf(StatusBadRequest, "field %q is %q: want %s, %s or %s", "ack", q.Ack, AckNone, AckOwner, AckClient)
	}
	m.Timeout = time.Duration(q.TimeoutMS) * time.Millisecond
	if m.Timeout == 0 {
		m.Timeout = DefaultSendTimeout
	}
	if m.Timeout > MaxSendTimeout {
		return m, Errorf(StatusBadRequest, "field %q is %d: at most %d", "timeout_ms", q.TimeoutMS, MaxSendTimeout.Milliseconds())
	}
	if q.ID == "" {
		m.ID = wire.MessageID{Instance: wire.NewID(), Counter: 1}
		return m, nil
	}
	if m.ID, err = wire.ParseMessageID(q.ID); err != nil || m.ID.Instance == 0 || m.ID.Counter == 0 {
		return m, Errorf(StatusBadRequest, "field %q is %q: want sixteen hex digits, a dot and a number, neither of them zero", "id", q.ID).
			WithHint("say 00000000000000a7.1: the digits are yours for as long as you send, the number is higher in each message; the same id again is the same message, a lower number is answered out_of_order")
	}
	return m, nil
}

func (q *SendRequest) payload(limit int) (b []byte, err error) {
	switch {
	case q.Payload == nil && q.PayloadB64 == nil:
		return nil, Errorf(StatusBadRequest, `field "payload" is missing`).WithHint("give the text as payload, or bytes as payload_b64")
	case q.Payload != nil && q.PayloadB64 != nil:
		return nil, Errorf(StatusBadRequest, `fields "payload" and "payload_b64" are both given`).WithHint("give one of them")
	case q.Payload != nil:
		b = []byte(*q.Payload)
	default:
		if b, err = base64.StdEncoding.Strict().DecodeString(*q.PayloadB64); err != nil {
			return nil, Errorf(StatusBadRequest, `field "payload_b64" is not valid base64: %v`, err).WithHint("standard alphabet, padded with =")
		}
	}
	if len(b) > limit {
		return nil, Errorf(StatusTooLarge, "the payload has %d bytes: at most %d", len(b), limit)
	}
	return b, nil
}
