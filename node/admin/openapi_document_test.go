package admin

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// document is openapi.yaml as JSON would have it.
type document struct{ root map[string]any }

func (d *document) at(v any) map[string]any {
	m, _ := v.(map[string]any)
	for m != nil && m["$ref"] != nil {
		at := any(d.root)
		for _, part := range strings.Split(strings.TrimPrefix(m["$ref"].(string), "#/"), "/") {
			at = at.(map[string]any)[part]
		}
		m, _ = at.(map[string]any)
	}
	return m
}

// validate says what in v does not fit a schema.
func (d *document) validate(schema any, v any, where string) error {
	s := d.at(schema)
	if s == nil {
		return fmt.Errorf("%s: no schema", where)
	}
	if either, ok := s["oneOf"].([]any); ok {
		fits := 0
		for _, one := range either {
			if d.validate(one, v, where) == nil {
				fits++
			}
		}
		if fits != 1 {
			return fmt.Errorf("%s: fits %d of %d", where, fits, len(either))
		}
		return nil
	}
	bad := func() error { return fmt.Errorf("%s: %v is no %v", where, v, s["type"]) }
	switch s["type"] {
	case "string":
		text, ok := v.(string)
		if !ok {
			return bad()
		}
		if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(text) {
			return fmt.Errorf("%s: %q does not match %s", where, text, p)
		}
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339, text); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return bad()
		}
	case "integer":
		n, ok := v.(json.Number)
		if !ok || strings.ContainsAny(n.String(), ".eE") {
			return bad()
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			return bad()
		}
		for i, one := range list {
			if err := d.validate(s["items"], one, fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			return bad()
		}
		props, _ := s["properties"].(map[string]any)
		for name, one := range m {
			p, known := props[name]
			if !known {
				if p = s["additionalProperties"]; p == nil || p == false {
					return fmt.Errorf("%s: %s is not described", where, name)
				}
			}
			if err := d.validate(p, one, where+"."+name); err != nil {
				return err
			}
		}
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := m[name.(string)]; !ok {
				return fmt.Errorf("%s: %s is missing", where, name)
			}
		}
	default:
		return fmt.Errorf("%s: schema of type %v", where, s["type"])
	}
	return nil
}
