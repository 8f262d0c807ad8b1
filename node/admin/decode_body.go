package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"imroute/mesh/wire"
)

// decodeBody is how every request body becomes a struct. It is stricter than encoding/json: names are compared as they are and
// may occur once, so that this server and whatever looked at the request before it see the same thing; text is what was sent, or
// refused. The fields' types are those of fieldWants.
func decodeBody(raw []byte, v any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	if !utf8.Valid(raw) {
		return Errorf(StatusBadRequest, "the body is not valid UTF-8").WithHint("send binary payloads as payload_b64")
	}
	var whole json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&whole); err != nil {
		return syntaxError(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Errorf(StatusBadRequest, "the body has more than one JSON value")
	}
	if whole[0] == 'n' { // null is no body
		return nil
	}
	if whole[0] != '{' {
		return Errorf(StatusBadRequest, "the body is %s: want an object", jsonKind(whole))
	}
	fields, _ := bodyFields(v)
	err := wire.EachMember(whole, func(name string, value json.RawMessage) error {
		field, ok := fields[name]
		switch {
		case !ok:
			return Errorf(StatusBadRequest, "field %q is not known here", name).WithHint("%s", known(v))
		case loneSurrogate(value):
			return Errorf(StatusBadRequest, "field %q has half of a surrogate pair (\\ud800 to \\udfff), which is no text", name).
				WithHint("write the character itself or both halves; send binary payloads as payload_b64")
		}
		if err := json.Unmarshal(value, field.Addr().Interface()); err != nil {
			return fieldError(name, field.Type(), value)
		}
		return nil
	})
	if _, ok := errors.AsType[*Error](err); err != nil && !ok {
		return Errorf(StatusBadRequest, "field %v", err) // the object is valid: a name is given twice
	}
	return err
}

// bodyFields are the fields of a pointer to a struct, by name and in order.
func bodyFields(v any) (map[string]reflect.Value, []string) {
	s := reflect.ValueOf(v).Elem()
	fields := make(map[string]reflect.Value, s.NumField())
	var names []string
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = s.Field(i)
		names = append(names, name)
	}
	return fields, names
}

// known lists the fields of a request.
func known(v any) string {
	_, names := bodyFields(v)
	if len(names) == 0 {
		return "no fields are known here"
	}
	return "known are " + strings.Join(names, ", ")
}

func syntaxError(err error) *Error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return Errorf(StatusBadRequest, "the body is not valid JSON: it ends too early")
	case errors.As(err, &syntax):
		return Errorf(StatusBadRequest, "the body is not valid JSON at byte %d: %s", syntax.Offset, strings.TrimPrefix(err.Error(), "json: "))
	}
	return Errorf(StatusBadRequest, "the body is not valid JSON")
}

// fieldError says what a field's value should be, and what it is.
func fieldError(name string, t reflect.Type, value json.RawMessage) *Error {
	want := fieldWants(t)
	got := jsonKind(value)
	switch got {
	case "a number":
		if want == wantNumber && len(value) <= 40 {
			return Errorf(StatusBadRequest, "field %q: %s is not possible: want %s", name, value, want)
		}
	case "a list":
		if want == wantList {
			return Errorf(StatusBadRequest, "field %q: want %s, and not all in it is text", name, want)
		}
	}
	return Errorf(StatusBadRequest, "field %q: want %s, not %s", name, want, got)
}

const (
	wantNumber = "a whole number from 0 to 4294967295"
	wantList   = "a list of texts"
)

// fieldWants names what goes into a field. A test takes it over every body there is.
func fieldWants(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Uint32:
		return wantNumber
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return wantList
	}
	panic(fmt.Sprintf("admin: a body has a field of type %v", t)) // found by the test
}

// jsonKind is what a valid JSON value is.
func jsonKind(value json.RawMessage) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "text"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// loneSurrogate finds an escape in valid JSON that stands for half a character: encoding/json makes U+FFFD of it, and two
// different texts would become one.
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		r := surrogate(raw[i:])
		i++ // what is escaped is no backslash that begins anything
		switch {
		case r >= 0xdc00:
			return true
		case r >= 0xd800:
			if surrogate(raw[min(i+5, len(raw)):]) < 0xdc00 {
				return true
			}
			i += 10 // behind both
		}
	}
	return false
}

// surrogate returns the half of a pair that raw begins with as an escape, or 0.
func surrogate(raw []byte) uint64 {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0
	}
	r, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil || r < 0xd800 || r > 0xdfff {
		return 0
	}
	return r
}
