package config

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write schema.json and the golden files again")

// TestSchemaIsInStep generates the JSON schema from the types and compares it
// with the committed one.
func TestSchemaIsInStep(t *testing.T) {
	schema := generateSchema(t)
	want, err := json.MarshalIndent(schema, "", "  ")
	require.NoError(t, err)
	want = append(want, '\n')
	if *update {
		require.NoError(t, os.WriteFile("schema.json", want, 0o644))
		return
	}
	require.Equal(t, string(want), string(Schema()), "schema.json is out of step with the types: run go test ./config -update")
}

func generateSchema(t *testing.T) *jsonschema.Schema {
	r := &jsonschema.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		ExpandedStruct:             true,
		Mapper:                     scalarSchema,
	}
	require.NoError(t, r.AddGoComments("github.com/walkeep/walkeep/config", "."))
	s := r.Reflect(&Config{})
	s.ID = ""
	s.Title = "walkeep configuration"
	repo := s.Definitions["Repo"]
	for _, key := range storeKeys {
		repo.OneOf = append(repo.OneOf, &jsonschema.Schema{Required: []string{key}})
	}
	unwrap(s)
	for _, d := range s.Definitions {
		unwrap(d)
	}
	return s
}

// unwrap joins the lines of Go comments.
func unwrap(s *jsonschema.Schema) {
	s.Description = strings.ReplaceAll(s.Description, "\n", " ")
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		p.Value.Description = strings.ReplaceAll(p.Value.Description, "\n", " ")
	}
}

// scalarSchema is what an editor can check of the values with a text form of
// their own; walkeep checks the rest.
func scalarSchema(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern}
	}
	oneOf := func(values ...any) *jsonschema.Schema { return &jsonschema.Schema{Enum: values} }
	switch t {
	case reflect.TypeFor[Duration]():
		return text(`^([0-9]+d|([0-9.]+(ns|us|µs|ms|s|m|h))+)$`)
	case reflect.TypeFor[ByteRate]():
		return text(`^[0-9.]+ *[kKMGT]?i?[bB]?(/s)?$`)
	case reflect.TypeFor[ByteSize]():
		return text(`^[0-9.]+ *[kKMGT]?i?[bB]?$`)
	case reflect.TypeFor[Require]():
		return oneOf("all", 1, 2, 3, 4)
	case reflect.TypeFor[TimeZone](), reflect.TypeFor[Cron]():
		return text("")
	case reflect.TypeFor[BackupFrom]():
		return oneOf(PreferStandby, FromStandby, FromPrimary)
	case reflect.TypeFor[BackupSource]():
		return oneOf(SourceAuto, SourceFiles, SourceSQL)
	case reflect.TypeFor[RetentionType]():
		return oneOf(RetainCount, RetainTime)
	}
	return nil
}
