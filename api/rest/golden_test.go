package rest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/apitest"
	"github.com/walkeep/walkeep/api/rest"
)

var update = flag.Bool("update", false, "write descriptions.json, examples.json and docs/openapi.yaml again")

// golden compares with a file that is kept, or writes it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "%s is out of step: run go test ./api/rest -update, twice", path)
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	require.NoError(t, e.Encode(v))
	return b.Bytes()
}

// TestDescriptionsAreTheComments makes descriptions.json from the Go source.
func TestDescriptionsAreTheComments(t *testing.T) {
	comments := map[string]string{}
	for _, pattern := range []string{"../*.go", "../../repo/window.go", "../../repo/summary.go", "../../repo/contents.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, path := range files {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			require.NoError(t, err)
			for _, d := range f.Decls {
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
					collect(comments, g)
				}
			}
		}
	}
	golden(t, "descriptions.json", indented(t, comments))
}

func collect(comments map[string]string, g *ast.GenDecl) {
	for _, spec := range g.Specs {
		ts := spec.(*ast.TypeSpec)
		s, ok := ts.Type.(*ast.StructType)
		if !ok {
			continue
		}
		comments[ts.Name.Name] = forReaders(g.Doc)
		for _, f := range s.Fields.List {
			text := forReaders(f.Doc)
			if text == "" {
				text = forReaders(f.Comment)
			}
			for _, n := range f.Names {
				if text != "" {
					comments[ts.Name.Name+"."+n.Name] = text
				}
			}
		}
	}
}

// forReaders is a comment without its line ends and the links of Go.
func forReaders(c *ast.CommentGroup) string {
	text := strings.Join(strings.Fields(c.Text()), " ")
	text = regexp.MustCompile(`\[(\w+)\]`).ReplaceAllString(text, "$1")
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	if text != "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}

// shown is one example: what is asked, of a service that is like this.
type shown struct {
	id, method, path, body string
	prepare                func(s *apitest.Service)
}

func theShown() []shown {
	idle := func(s *apitest.Service) {
		s.UpdateRun("20261122-123000-repo1-incremental", func(r *api.Run) { r.State, r.Ended = api.Done, apitest.Now() })
	}
	return []shown{
		{id: "get-health", path: "/v1/health"},
		{id: "get-snapshot", path: "/v1/snapshot"},
		{id: "list-nodes", path: "/v1/nodes"},
		{id: "list-scheduled", path: "/v1/schedule"},
		{id: "list-repositories", path: "/v1/repos"},
		{id: "get-repository", path: "/v1/repos/repo1"},
		{id: "get-coverage", path: "/v1/wal?repo=repo2"},
		{id: "list-gaps", path: "/v1/gaps"},
		{id: "list-windows", path: "/v1/windows?repo=repo1"},
		{id: "can-restore", path: "/v1/can-restore?at=2026-11-22T12:00:00Z"},
		{id: "list-backups", path: "/v1/backups?repo=repo1&limit=2"},
		{id: "get-backup", path: "/v1/repos/repo1/backups/20261122-010000F"},
		{id: "get-backup-contents", path: "/v1/repos/repo1/backups/20261122-010000F/contents"},
		{id: "list-runs", path: "/v1/runs?limit=2"},
		{id: "get-run", path: "/v1/runs/20261122-123000-repo1-incremental"},
		{id: "follow-run", path: "/v1/runs/20261122-010000-repo1-full/events"},
		{id: "cancel-run", method: http.MethodPost, path: "/v1/runs/20261122-123000-repo1-incremental/cancel"},
		{id: "start-backup", method: http.MethodPost, path: "/v1/backups", body: `{"repo":"repo1","type":"full","annotations":{"ticket":"OPS-12"}}`, prepare: idle},
		{id: "expire", method: http.MethodPost, path: "/v1/repos/repo2/expire", body: `{"dry_run":false}`},
		{id: "drill", method: http.MethodPost, path: "/v1/repos/repo1/drill", prepare: idle},
		{id: "verify", method: http.MethodPost, path: "/v1/repos/repo1/verify", prepare: idle},
		{id: "repair", method: http.MethodPost, path: "/v1/repos/repo2/repair"},
		{id: "pause-repository", method: http.MethodPost, path: "/v1/repos/repo1/pause"},
		{id: "pause", method: http.MethodPost, path: "/v1/pause"},
		{id: "resume-repository", method: http.MethodPost, path: "/v1/repos/repo1/resume"},
		{id: "resume", method: http.MethodPost, path: "/v1/resume"},
	}
}

// little is the sample with few backups.
func little() *apitest.Service {
	s := apitest.New(apitest.Sample(), apitest.Now)
	s.Update(func(n *api.Snapshot) {
		for i := range n.Repos {
			r := &n.Repos[i]
			r.Backups = r.Backups[:min(4, len(r.Backups))]
			for j := range r.Windows {
				l := r.Windows[j].Backups
				r.Windows[j].Backups = l[max(0, len(l)-4):]
				r.Windows[j].Earliest = r.Backups[len(r.Backups)-1].Stop
			}
		}
	})
	return s
}

// everybody lets everybody in as an operator.
type everybody struct{ api.Role }

func (e everybody) Authenticate(*http.Request) (api.Identity, error) {
	return api.Identity{Name: "operator token", Role: e.Role}, nil
}

func handlerOf(t testing.TB, o rest.Options) http.Handler {
	if o.Service == nil {
		o.Service = apitest.New(apitest.Sample(), nil)
	}
	if o.Authenticators == nil {
		o.Authenticators = []api.Authenticator{everybody{api.Operator}}
	}
	h, err := rest.New(o)
	require.NoError(t, err)
	return h
}

func ask(t testing.TB, h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	if method == "" {
		method = http.MethodGet
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestExamplesAreAnswers makes examples.json of what the server answers.
func TestExamplesAreAnswers(t *testing.T) {
	type example struct {
		Request  json.RawMessage `json:"request,omitempty"`
		Response json.RawMessage `json:"response,omitempty"`
		Stream   string          `json:"stream,omitempty"`
	}
	all := map[string]example{}
	for _, s := range theShown() {
		service := little()
		if s.prepare != nil {
			s.prepare(service)
		}
		w := ask(t, handlerOf(t, rest.Options{Service: service}), s.method, s.path, s.body)
		require.Less(t, w.Code, 300, "%s: %s", s.id, w.Body)
		e := example{Request: json.RawMessage(s.body)}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") {
			e.Stream = w.Body.String()
		} else {
			e.Response = bytes.TrimSpace(w.Body.Bytes())
		}
		all[s.id] = e
	}
	golden(t, "examples.json", indented(t, all))
}

// TestDocument keeps docs/openapi.yaml in step, and checks that the document
// says something about everything.
func TestDocument(t *testing.T) {
	h := handlerOf(t, rest.Options{Version: "v1"})
	yaml := ask(t, h, "", "/v1/openapi.yaml", "")
	require.Equal(t, 200, yaml.Code)
	golden(t, "../../docs/openapi.yaml", yaml.Body.Bytes())

	var d struct {
		OpenAPI    string `json:"openapi"`
		Components struct {
			Schemas map[string]schema `json:"schemas"`
		} `json:"components"`
		Paths map[string]map[string]struct {
			OperationID          string
			Summary, Description string
			Security             []any
			Parameters           []struct{ Name, Description string }
			RequestBody          *struct{ Content map[string]media }
			Responses            map[string]struct{ Content map[string]media }
		} `json:"paths"`
	}
	js := ask(t, h, "", "/v1/openapi.json", "")
	require.Equal(t, 200, js.Code)
	require.NoError(t, json.Unmarshal(js.Body.Bytes(), &d))
	require.Equal(t, "3.1.0", d.OpenAPI)
	for _, m := range regexp.MustCompile(`"\$ref":"([^"]*)"`).FindAllStringSubmatch(js.Body.String(), -1) {
		require.Contains(t, d.Components.Schemas, strings.TrimPrefix(m[1], "#/components/schemas/"))
	}
	known := map[string]bool{}
	for _, s := range theShown() {
		known[s.id] = true
	}
	for path, methods := range d.Paths {
		for method, op := range methods {
			at := method + " " + path
			require.True(t, known[op.OperationID], "%s has no example in theShown", at)
			delete(known, op.OperationID)
			require.NotEmpty(t, op.Summary, at)
			require.NotEmpty(t, op.Description, at)
			require.NotEmpty(t, op.Security, at)
			for _, p := range op.Parameters {
				require.NotEmpty(t, p.Description, "%s: %s", at, p.Name)
			}
			if op.RequestBody != nil {
				require.NotNil(t, op.RequestBody.Content["application/json"].Example, at)
			}
			good := 0
			for status, r := range op.Responses {
				for _, m := range r.Content {
					if status[0] == '2' {
						require.NotNil(t, m.Example, at)
						good++
					}
				}
			}
			require.Equal(t, 1, good, at)
			require.Contains(t, op.Responses["401"].Content, "application/problem+json", at)
		}
	}
	require.Empty(t, known)
	for name, s := range d.Components.Schemas {
		if !strings.HasSuffix(name, "Body") {
			require.NotEmpty(t, s.Description, name)
		}
	}
}

type media struct{ Example any }

type schema struct {
	Description string
	Properties  map[string]json.RawMessage
}
