package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder walks the syntax tree of a file beside the Go types and notes what
// does not fit, going on after each problem. (The library's own decoder stops
// at the first.)
type decoder struct {
	problems  []Problem
	positions map[string]*token.Position // of each field's value, for checks
	keys      map[string]*token.Position // of each field's key
	anchors   map[string]ast.Node
}

func (d *decoder) problem(at *token.Position, field, found, expected string) {
	p := Problem{Field: field, Found: found, Expected: expected}
	if at != nil {
		p.Line, p.Column = at.Line, at.Column
	}
	d.problems = append(d.problems, p)
}

// decode stores what node holds into v. field is its path.
func (d *decoder) decode(node ast.Node, v reflect.Value, field string) {
	node, ok := d.resolve(node, field)
	if !ok {
		return
	}
	d.positions[field] = position(node)
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if s, ok := v.Addr().Interface().(scalar); ok {
		d.scalar(node, s, field)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(node, v, field)
	case reflect.Slice:
		d.sequence(node, v, field)
	case reflect.String:
		if text, ok := d.text(node, field, "text"); ok {
			if text == "" {
				d.problem(position(node), field, "found an empty text", "a value, or the line left out")
			}
			v.SetString(text)
		}
	case reflect.Int:
		d.integer(node, v, field)
	case reflect.Bool:
		if b, ok := node.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
		d.problem(position(node), field, "found "+describe(node), "true or false")
	default:
		panic("config: no decoding of " + v.Type().String())
	}
}

// resolve follows anchors and aliases. An alias can only name what stands
// before it, so there are no cycles.
func (d *decoder) resolve(node ast.Node, field string) (ast.Node, bool) {
	switch n := node.(type) {
	case *ast.AnchorNode:
		value, ok := d.resolve(n.Value, field)
		if ok && n.Name != nil {
			d.anchors[n.Name.GetToken().Value] = value
		}
		return value, ok
	case *ast.AliasNode:
		if n.Value != nil {
			if value, ok := d.anchors[n.Value.GetToken().Value]; ok {
				return value, true
			}
		}
		d.problem(position(n), field, "found the alias "+describe(n), "the name of an anchor further up")
		return nil, false
	case *ast.TagNode:
		d.problem(position(n), field, "found the tag "+quote(n.GetToken().Value), "a plain value")
		return nil, false
	}
	return node, true
}

func (d *decoder) mapping(node ast.Node, v reflect.Value, field string) {
	var entries []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode: // a block mapping of one entry
		entries = []*ast.MappingValueNode{n}
	default:
		d.problem(position(node), field, "found "+describe(node), "a mapping with the keys "+strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := map[string]*token.Position{}
	for _, entry := range entries {
		key := keyText(entry.Key)
		at := position(entry.Key)
		path := join(field, key)
		i := slices.Index(keysOf(v.Type()), key)
		if i < 0 {
			d.unknownKey(at, field, key, v.Type())
			continue
		}
		if first, ok := seen[key]; ok {
			d.problem(at, path, fmt.Sprintf("found a second time (the first is on line %d)", first.Line), "each key once")
			continue
		}
		seen[key] = at
		d.keys[path] = at
		d.decode(entry.Value, v.Field(i), path)
	}
	for i := range v.NumField() {
		key := keysOf(v.Type())[i]
		if _, ok := seen[key]; !ok && required(v.Type().Field(i)) {
			d.problem(position(node), join(field, key), "missing", "a value: "+join(field, key)+" is required")
		}
	}
}

func (d *decoder) sequence(node ast.Node, v reflect.Value, field string) {
	n, ok := node.(*ast.SequenceNode)
	if !ok {
		d.problem(position(node), field, "found "+describe(node), "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values)))
	for i, item := range n.Values {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", field, i))
	}
}

func (d *decoder) scalar(node ast.Node, s scalar, field string) {
	text, ok := d.text(node, field, s.expects())
	if !ok {
		return
	}
	if err := s.UnmarshalText([]byte(text)); err != nil {
		d.problem(position(node), field, fmt.Sprintf("found %s: %v", quote(text), err), s.expects())
	}
}

// text is the text of a scalar node as it stands in the file: a bucket may be
// called 007.
func (d *decoder) text(node ast.Node, field, expected string) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	d.problem(position(node), field, "found "+describe(node), expected)
	return "", false
}

func (d *decoder) integer(node ast.Node, v reflect.Value, field string) {
	if n, ok := node.(*ast.IntegerNode); ok {
		if i, err := strconv.Atoi(n.GetToken().Value); err == nil {
			v.SetInt(int64(i))
			return
		}
	}
	d.problem(position(node), field, "found "+describe(node), "a whole number")
}

// secretKeys are what people write who put a secret into the file, and the key
// that they want. Their values are never shown.
var secretKeys = map[string]string{
	"access-key":        "access-key-id-file",
	"access-key-id":     "access-key-id-file",
	"secret-key":        "secret-access-key-file",
	"secret-access-key": "secret-access-key-file",
	"session-token":     "session-token-file",
	"account-key":       "account-key-file",
	"key":               "account-key-file",
	"sas-token":         "sas-token-file",
	"credentials":       "credentials-file",
	"identity":          "identity-file",
	"metadata-identity": "metadata-identity-file",
	"password":          "conninfo",
}

func (d *decoder) unknownKey(at *token.Position, field, key string, t reflect.Type) {
	path, known := join(field, key), keysOf(t)
	instead := secretKeys[strings.ToLower(strings.ReplaceAll(key, "_", "-"))]
	switch {
	case key == "password":
		d.problem(at, path, "found a secret in the configuration", "none: name a password file with passfile= in conninfo, or use ~/.pgpass")
	case instead != "" && slices.Contains(known, instead):
		d.problem(at, path, "found a secret in the configuration", instead+": the name of a file that holds it")
	case key == "<<":
		d.problem(at, path, "found a merge key", "aliases of whole values only")
	default:
		expected := "one of " + strings.Join(known, ", ")
		if c := closest(key, known); c != "" {
			expected += fmt.Sprintf(" (did you mean %q?)", c)
		}
		d.problem(at, path, "found an unknown key", expected)
	}
}

// keysOf are the keys of a mapping that decodes into t, in the order of its
// fields.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
	}
	return keys
}

// required reports whether a mapping must have the field. The tag is the one
// that the JSON schema is made from.
func required(f reflect.StructField) bool {
	return slices.Contains(strings.Split(f.Tag.Get("jsonschema"), ","), "required")
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

func keyText(k ast.Node) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.GetToken().Value
}

// position is where a node starts. A block mapping's own token is the colon
// after its first key.
func position(node ast.Node) *token.Position {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return position(n.Values[0])
		}
	case *ast.MappingValueNode:
		return position(n.Key)
	}
	if t := node.GetToken(); t != nil {
		return t.Position
	}
	return nil
}

// describe names what stands at a node, for "found …".
func describe(node ast.Node) string {
	switch n := node.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return quote(n.Value)
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.AliasNode:
		if n.Value != nil {
			return quote("*" + n.Value.GetToken().Value)
		}
	}
	return quote(node.GetToken().Value)
}
