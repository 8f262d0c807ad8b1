package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
)

// lastGood remembers which address answered last.
type lastGood struct{ n atomic.Int32 }

func (l *lastGood) get() int  { return int(l.n.Load()) }
func (l *lastGood) set(n int) { l.n.Store(int32(n)) }

func hostOf(base string) string {
	_, host, _ := strings.Cut(base, "://")
	return host
}

// rootCause drops the wrapping that repeats the URL.
func rootCause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// readError makes an *Error of a refused request.
func readError(resp *http.Response) *Error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return &Error{Status: statusOfHTTP(resp.StatusCode), Text: resp.Status, Err: err}
	}
	return parseError(resp.StatusCode, raw)
}

func isErrorBody(raw []byte) bool {
	var b struct {
		Error json.RawMessage `json:"error"`
	}
	return json.Unmarshal(raw, &b) == nil && len(b.Error) > 0 && b.Error[0] == '{'
}

// parseError never fails: what is not ours becomes an error by its HTTP status.
func parseError(code int, raw []byte) *Error {
	var b errorBody
	if err := json.Unmarshal(raw, &b); err != nil || b.Error.Reason == "" {
		text := strings.TrimSpace(string(raw[:min(len(raw), 200)]))
		status := statusOfHTTP(code)
		if status == StatusNotFound { // what was not found is the API
			status = StatusInternal
		}
		e := Errorf(status, "HTTP %d %s: %q", code, http.StatusText(code), text)
		if strings.Contains(text, "HTTP request to an HTTPS server") { // net/http's answer to plain text
			return e.WithHint("this address speaks TLS: write it as https://… and give its certificate authority with --ca")
		}
		return e.WithHint("is this the admin address of an imroute node?")
	}
	e := &Error{Code: b.Error.Code, Status: b.Error.Reason, Text: b.Error.Message, Hint: b.Error.Hint}
	if statusHTTP[e.Status] == 0 {
		e.Status = statusOfHTTP(code) // a newer node's word
	}
	return e
}

// notOurs is for an answer that is no JSON of ours.
func notOurs(base string, err error) *Error {
	return &Error{
		Status: StatusInternal, Text: fmt.Sprintf("the answer of %s cannot be read: %v", hostOf(base), err),
		Hint: "is this the admin address of an imroute node?", Err: err,
	}
}

// asClientError is the *Error that send and the like always return.
func asClientError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Status: StatusUnreachable, Text: err.Error(), Err: err}
}
