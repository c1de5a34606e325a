package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryKeyIsDocumented finds settings that docs/configuration.md does not
// mention.
func TestEveryKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z0-9.\\[\\]-]+)`").FindAllStringSubmatch(string(page), -1) {
		for part := range strings.SplitSeq(m[1], ".") {
			documented[strings.TrimSuffix(part, "[]")] = true
		}
	}
	var walk func(t reflect.Type)
	missing := []string{}
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if _, ok := reflect.New(typ).Interface().(scalar); ok || typ.Kind() != reflect.Struct {
			return
		}
		for i, key := range keysOf(typ) {
			if !documented[key] {
				missing = append(missing, typ.Name()+"."+key)
			}
			walk(typ.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[Config]())
	require.Empty(t, missing, "docs/configuration.md says nothing about these settings")
}

// TestExampleOfThePage parses the example in docs/configuration.md.
func TestExampleOfThePage(t *testing.T) {
	for _, path := range []string{"../docs/configuration.md", "../README.md"} {
		page, err := os.ReadFile(path)
		require.NoError(t, err)
		m := regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```").FindStringSubmatch(string(page))
		require.NotNil(t, m, path)
		_, err = Parse(path, []byte(strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n")))
		require.NoError(t, err)
	}
}
