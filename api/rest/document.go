package rest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// descriptionsJSON are the Go comments of the types of the document: "Type" and
// "Type.Field".
//
//go:embed descriptions.json
var descriptionsJSON []byte

// examplesJSON are requests and answers, by the id of the operation.
//
//go:embed examples.json
var examplesJSON []byte

// example is one request and its answer.
type example struct {
	Request  json.RawMessage `json:"request,omitempty"`
	Response json.RawMessage `json:"response,omitempty"`
	// Stream is the answer of a stream.
	Stream string `json:"stream,omitempty"`
}

// document is the head of the OpenAPI document.
func document(version string) *huma.OpenAPI {
	r := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	r.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[api.Fault]())
	r.RegisterTypeAlias(reflect.TypeFor[pg.LSN](), reflect.TypeFor[lsnSchema]())
	r.RegisterTypeAlias(reflect.TypeFor[pg.SystemID](), reflect.TypeFor[systemIDSchema]())
	if version == "" {
		version = "devel"
	}
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "walkeep", Version: version,
			Description: "Backups and WAL of one PostgreSQL cluster: look, start, follow, cancel. Errors are problem details (RFC 9457).",
			License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Tags: []*huma.Tag{
			{Name: "state", Description: "How the cluster and the service are."},
			{Name: "repositories", Description: "Where backups and WAL are kept."},
			{Name: "backups", Description: "What was backed up."},
			{Name: "runs", Description: "What the service does, did and is going to do."},
			{Name: "wal", Description: "What is archived, and what is missing."},
			{Name: "restore", Description: "Which moments can be restored."},
		},
		Components: &huma.Components{
			Schemas: r,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"token":       {Type: "http", Scheme: "bearer", Description: "A token of the service's files."},
				"certificate": {Type: "mutualTLS", Description: "A client's certificate whose common name is configured."},
			},
		},
	}
}

// lsnSchema describes a pg.LSN.
type lsnSchema struct{}

func (lsnSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$", Examples: []any{"3/8A000148"},
		Description: "A position in the WAL, as PostgreSQL writes it.",
	}
}

// systemIDSchema describes a pg.SystemID.
type systemIDSchema struct{}

func (systemIDSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: "^[0-9]+$", Examples: []any{"7569321407812345678"},
		Description: "The system identifier of a PostgreSQL cluster; as text, because it does not fit JavaScript's numbers.",
	}
}

// describe fills in descriptions and examples, and makes the files of the
// document, by path.
func describe(d *huma.OpenAPI) (map[string]http.Handler, error) {
	var descriptions map[string]string
	if err := json.Unmarshal(descriptionsJSON, &descriptions); err != nil {
		return nil, fmt.Errorf("descriptions of the API: %w", err)
	}
	var examples map[string]example
	if err := json.Unmarshal(examplesJSON, &examples); err != nil {
		return nil, fmt.Errorf("examples of the API: %w", err)
	}
	describeSchemas(d.Components.Schemas, descriptions)
	for _, item := range d.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post} {
			if op == nil {
				continue
			}
			if err := addExample(op, examples[op.OperationID]); err != nil {
				return nil, fmt.Errorf("example of %s: %w", op.OperationID, err)
			}
		}
	}
	js, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("document of the API: %w", err)
	}
	yaml, err := d.YAML()
	if err != nil {
		return nil, fmt.Errorf("document of the API: %w", err)
	}
	return map[string]http.Handler{
		"/v1/openapi.json": file{"application/openapi+json", js},
		"/v1/openapi.yaml": file{"application/openapi+yaml", yaml},
	}, nil
}

// file is served as it is.
type file struct {
	contentType string
	content     []byte
}

func (f file) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", f.contentType)
	_, _ = w.Write(f.content) // a client that went away
}

// describeSchemas gives types and fields their comments.
func describeSchemas(r huma.Registry, descriptions map[string]string) {
	requests := map[string]bool{"BackupRequest": true, "ExpireInputBody": true}
	for name, s := range r.Map() {
		t := r.TypeFromRef("#/components/schemas/" + name)
		if s.Description == "" {
			s.Description = descriptions[t.Name()]
		}
		for _, f := range reflect.VisibleFields(t) {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			p := s.Properties[key]
			if p == nil {
				continue
			}
			owner := t
			if len(f.Index) > 1 {
				owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type
			}
			if text := descriptions[owner.Name()+"."+f.Name]; text != "" {
				// A schema that is a reference is shared: what is said beside it is of
				// this field only.
				p.Description = text
			}
			if p.Type == huma.TypeArray {
				p.Nullable = false // what we send has no null lists
			}
			p.Enum = append(p.Enum, values(f.Type)...)
		}
		if !requests[name] {
			s.AdditionalProperties = nil // a later version may say more
		}
	}
}

// values are those that a type can have, or nil.
func values(t reflect.Type) []any {
	switch t {
	case reflect.TypeFor[api.Level]():
		return []any{api.OK, api.Warning, api.Critical}
	case reflect.TypeFor[api.RunState]():
		return []any{api.Queued, api.Running, api.Done, api.Failed, api.Cancelled, api.Lost}
	case reflect.TypeFor[repo.BackupType]():
		return []any{repo.Full, repo.Differential, repo.Incremental}
	}
	return nil
}

func addExample(op *huma.Operation, e example) error {
	if e.Request != nil && op.RequestBody != nil {
		v, err := decoded(e.Request)
		if err != nil {
			return err
		}
		op.RequestBody.Content["application/json"].Example = v
	}
	status := op.DefaultStatus
	if status == 0 {
		status = http.StatusOK
	}
	resp := op.Responses[strconv.Itoa(status)]
	if resp == nil {
		return nil
	}
	if m := resp.Content["text/event-stream"]; m != nil {
		m.Example = e.Stream
	}
	if m := resp.Content["application/json"]; m != nil && e.Response != nil {
		v, err := decoded(e.Response)
		if err != nil {
			return err
		}
		m.Example = v
	}
	return nil
}

func decoded(b []byte) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber() // 64-bit numbers as they are
	return v, d.Decode(&v)
}
