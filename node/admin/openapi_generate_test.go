package admin

import (
	"bytes"
	"encoding"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"imroute/mesh/wire"
)

func readComments(t *testing.T) map[string]string {
	out := map[string]string{}
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		commentsOf(f, out)
	}
	return out
}

func commentsOf(f *ast.File, out map[string]string) {
	ast.Inspect(f, func(n ast.Node) bool {
		d, ok := n.(*ast.GenDecl)
		if !ok {
			return true
		}
		for _, spec := range d.Specs {
			ts, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			doc := ts.Doc.Text()
			if doc == "" {
				doc = d.Doc.Text()
			}
			out[ts.Name.Name] = strings.Join(strings.Fields(doc), " ")
			if st, ok := ts.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						out[ts.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Comment.Text()), " ")
					}
				}
			}
		}
		return true
	})
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

func (g *generator) schema(t reflect.Type, required []string) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Implements(textMarshaler):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem(), required)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Int32:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.schema(t.Elem(), nil)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.schema(t.Elem(), nil)}
	case reflect.Struct:
	default:
		panic("no schema for " + t.String())
	}
	if t.Name() == "" {
		return g.object(t, required)
	}
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if g.schemas[name] == nil {
		g.schemas[name] = map[string]any{} // of a type that holds itself
		g.schemas[name] = g.object(t, required)
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

func (g *generator) object(t reflect.Type, required []string) map[string]any {
	props := map[string]any{}
	always := slices.Clone(required)
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				add(f.Type)
				continue
			}
			name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			s := g.schema(f.Type, nil)
			if strings.Contains(opts, "string") {
				s = map[string]any{"type": "string", "pattern": "^[0-9]+$"}
			}
			if c := g.comments[t.Name()+"."+f.Name]; c != "" {
				s["description"] = c
			}
			props[name] = s
			if required == nil && !strings.Contains(opts, "omitempty") {
				always = append(always, name)
			}
		}
	}
	add(t)
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if len(always) > 0 {
		slices.Sort(always)
		out["required"] = always
	}
	if c := g.comments[t.Name()]; c != "" {
		out["description"] = c
	}
	return out
}

var statusWords = map[int]string{
	400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 413: "TooLarge", 429: "Overloaded", 500: "Internal", 503: "Unavailable", 504: "Timeout",
}

func jsonContent(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

func scopeOf(rt *route) string {
	switch {
	case rt.open:
		return "none"
	case rt.scope == anyScope:
		return "any"
	case rt.scope == 0:
		return wire.ScopeAdmin.String()
	}
	return rt.scope.String()
}

// generate writes openapi.yaml.
func generate(t *testing.T, s *Server) []byte {
	g := &generator{schemas: map[string]any{}, comments: readComments(t)}
	responses := map[string]any{}
	for code, word := range statusWords {
		responses[word] = map[string]any{"description": http.StatusText(code), "content": jsonContent(g.schema(reflect.TypeFor[errorBody](), nil))}
	}
	paths := map[string]any{}
	for i := range s.routes {
		rt := &s.routes[i]
		if undescribed(rt) {
			continue
		}
		e, ok := endpoints[rt.method+" "+rt.path]
		if !ok {
			t.Fatalf("%s %s is not in the table of this test", rt.method, rt.path)
		}
		op := map[string]any{"summary": e.summary, "x-scope": scopeOf(rt)}
		if rt.open {
			op["security"] = []any{}
		}
		var params []any
		for _, p := range rt.parts {
			if strings.HasPrefix(p, "{") {
				params = append(params, map[string]any{"name": strings.Trim(p, "{}"), "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
			}
		}
		for _, q := range e.query {
			name, typ, found := strings.Cut(strings.TrimPrefix(q, "!"), ":")
			if !found {
				typ = "string"
			}
			p := map[string]any{"name": name, "in": "query", "schema": map[string]any{"type": typ}}
			if strings.HasPrefix(q, "!") {
				p["required"] = true
			}
			params = append(params, p)
		}
		if params != nil {
			op["parameters"] = params
		}
		if e.in != nil {
			required := e.required
			if required == nil {
				required = []string{}
			}
			op["requestBody"] = map[string]any{"content": jsonContent(g.schema(reflect.TypeOf(e.in), required))}
		}
		rs := map[string]any{}
		for _, code := range e.codes() {
			switch {
			case code == 200 && e.content != "":
				rs["200"] = map[string]any{"description": "OK", "content": map[string]any{e.content: map[string]any{"schema": map[string]any{"type": "string"}}}}
			case code == 200, rt.open:
				rs[strconv.Itoa(code)] = map[string]any{"description": http.StatusText(code), "content": jsonContent(g.schema(reflect.TypeOf(e.out), nil))}
			case code == e.once:
				either := []any{g.schema(reflect.TypeOf(e.out), nil), g.schema(reflect.TypeFor[errorBody](), nil)}
				rs[strconv.Itoa(code)] = map[string]any{"description": http.StatusText(code), "content": jsonContent(map[string]any{"oneOf": either})}
			default:
				rs[strconv.Itoa(code)] = map[string]any{"$ref": "#/components/responses/" + statusWords[code]}
			}
		}
		op["responses"] = rs
		item, _ := paths[rt.path].(map[string]any)
		if item == nil {
			item = map[string]any{}
			paths[rt.path] = item
		}
		item[strings.ToLower(rt.method)] = op
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "imroute", "version": "1",
			"description": "For back ends and operators, on any node's admin port. Back ends show an API key (imctl api key create), whose scopes x-scope names; the operators' token may do everything. In development mode neither is needed. A client asks GET /v1/assign without a token on the WebSocket port too.",
		},
		"security": []any{map[string]any{"bearer": []any{}}},
		"paths":    paths,
		"components": map[string]any{
			"securitySchemes": map[string]any{"bearer": map[string]any{"type": "http", "scheme": "bearer"}},
			"schemas":         g.schemas, "responses": responses,
		},
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
