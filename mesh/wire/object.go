package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// EachMember calls f with the members of the one JSON object that b is, in their order, and stops at f's first error, which it
// returns. Names are exactly those written: encoding/json would take "Sub" for "sub", and of names given twice the last, so that
// whoever checked the object before and whoever reads it here could disagree about what it says. A name given twice is an error.
// Errors are plain words and name no Go types; f may keep value.
func EachMember(b []byte, f func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(b))
	first, err := d.Token()
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("it is empty: want a JSON object")
	case err != nil:
		return errors.New("it is not JSON")
	case first != json.Delim('{'):
		return errors.New("it is not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return errors.New("it is not JSON")
		}
		if seen[name] {
			return fmt.Errorf("%.64q is given twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return errors.New("it is not JSON")
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("it is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// Strings reads a JSON list of strings, without a null among them or in its place; it is never nil without an error.
func Strings(value json.RawMessage) ([]string, error) {
	var list []*string
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, errors.New("null is no list")
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s == nil {
			return nil, errors.New("null is no string")
		}
		out = append(out, *s)
	}
	return out, nil
}
