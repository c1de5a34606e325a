package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFileSize is far above any honest configuration, in bytes.
const maxFileSize = 1 << 20

// Load reads, completes and checks a configuration file. Errors are ErrInvalid;
// a refused file is an [*Error] with every problem.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w (%w)", err, ErrInvalid)
	}
	return Parse(path, data)
}

// Parse is Load for a file that has been read already. name stands in the
// messages.
func Parse(name string, data []byte) (*Config, error) {
	c, d, err := decodeFile(name, data)
	if err != nil {
		return nil, err
	}
	check(c, d)
	if len(d.problems) > 0 {
		e := &Error{File: name, Problems: d.problems}
		e.sort()
		return nil, e
	}
	c.setDefaults()
	return c, nil
}

func decodeFile(name string, data []byte) (*Config, *decoder, error) {
	refuse := func(p Problem) (*Config, *decoder, error) {
		return nil, nil, &Error{File: name, Problems: []Problem{p}}
	}
	if len(data) > maxFileSize {
		return refuse(Problem{Found: fmt.Sprintf("found %d bytes", len(data)), Expected: "at most 1 MiB"})
	}
	body, problem := parseYAML(data)
	if problem != nil {
		return refuse(*problem)
	}
	d := &decoder{
		positions: map[string]*token.Position{},
		keys:      map[string]*token.Position{},
		anchors:   map[string]ast.Node{},
	}
	c := &Config{}
	d.decode(body, reflect.ValueOf(c).Elem(), "")
	return c, d, nil
}

// parseYAML is the syntax tree of the one document in data.
func parseYAML(data []byte) (body ast.Node, problem *Problem) {
	// The parser of the library panics on some malformed documents.
	defer func() {
		if recover() != nil {
			problem = &Problem{Found: "found something that is not YAML", Expected: "a YAML mapping"}
		}
	}()
	file, err := parser.ParseBytes(bytes.TrimPrefix(data, []byte("\ufeff")), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if body != nil {
			at := position(doc.Body)
			return nil, &Problem{Line: at.Line, Column: at.Column, Found: "found a second YAML document", Expected: "one"}
		}
		body = doc.Body
	}
	if body == nil {
		return nil, &Problem{Found: "found no settings", Expected: "a YAML mapping with at least cluster and repos"}
	}
	return body, nil
}

// syntaxProblem leaves out the excerpt of the file that the library's text has:
// it could show what somebody took for a place to write a password.
func syntaxProblem(err error) *Problem {
	p := &Problem{Found: "found something that is not YAML", Expected: "a YAML mapping"}
	var e yaml.Error
	if errors.As(err, &e) {
		p.Found = "not YAML: " + e.GetMessage()
		p.Expected = ""
		if t := e.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = t.Position.Line, t.Position.Column
		}
	}
	return p
}
