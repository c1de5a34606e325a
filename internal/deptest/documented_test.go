package deptest

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/internal/sources"
)

// TestDependenciesAreDocumented compares the modules that our packages and
// tests import with docs/dependencies.md, both ways.
func TestDependenciesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/dependencies.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(page), -1) {
		if first, _, ok := strings.Cut(m[1], "/"); ok && strings.Contains(first, ".") {
			documented[m[1]] = true
		}
	}
	imported := importedModules(t)
	for module := range imported {
		require.True(t, documented[module], "docs/dependencies.md does not say why we depend on %s", module)
	}
	for module := range documented {
		require.True(t, imported[module], "docs/dependencies.md names %s, which nothing imports", module)
	}
}

// importedModules are the modules that our packages or their tests import
// themselves, with cgo and without.
func importedModules(t *testing.T) map[string]bool {
	imports := map[string]bool{}
	for _, cgo := range []string{"1", "0"} {
		out := goList(t, cgo, "-f", `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`, "./...")
		for path := range strings.FieldsSeq(out) {
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") && !below(path, []string{"./..."}) {
				imports[path] = true
			}
		}
	}
	args := append([]string{"-f", `{{with .Module}}{{.Path}}{{end}}`}, slices.Collect(maps.Keys(imports))...)
	modules := map[string]bool{}
	for m := range strings.FieldsSeq(goList(t, "1", args...)) {
		modules[m] = true
	}
	return modules
}

// goList runs `go list` at the root of the module.
func goList(t *testing.T, cgo string, args ...string) string {
	require.NoError(t, sources.Look(module+"/...")) // what go list reads
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return string(out)
}
