package sources

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLook shows, with a module of its own, that a result is not taken from the
// cache when a file changed that the test does not import; and that without Look it
// would be.
func TestLook(t *testing.T) {
	module := t.TempDir()
	// Go caches no result that depends on a file changed within the last seconds.
	past := time.Now().Add(-time.Hour)
	write := func(name, text string) {
		path := filepath.Join(module, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		past = past.Add(time.Minute)
		require.NoError(t, os.Chtimes(path, past, past))
	}
	source, err := os.ReadFile("sources.go")
	require.NoError(t, err)
	write("go.mod", "module example.org/m\n\ngo 1.26\n")
	write("sources/sources.go", string(source))
	write("looks/a_test.go", `package looks
import ("testing"; "example.org/m/sources")
func TestA(t *testing.T) { if err := sources.Look("example.org/m/program"); err != nil { t.Fatal(err) } }
`)
	write("blind/a_test.go", "package blind\nimport \"testing\"\nfunc TestA(t *testing.T) {}\n")
	write("program/main.go", "package main\nfunc main() {}\n")
	write("program/main_test.go", "package main\n")

	cached := func(dir string) bool {
		cmd := exec.Command("go", "test", "./"+dir)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "GOFLAGS=") // -count=1 there would mean no cache
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		t.Logf("%s", out)
		return bytes.Contains(out, []byte("(cached)"))
	}
	require.False(t, cached("looks"))
	require.True(t, cached("looks"), "nothing changed")
	require.False(t, cached("blind"))

	write("program/main_test.go", "package main\n\n")
	write("other/other.go", "package other\n")
	require.True(t, cached("looks"), "a test of the program is not the program, nor is what it does not import")
	write("program/main.go", "package main\n\nfunc main() {}\n")
	require.False(t, cached("looks"), "the program changed")
	require.True(t, cached("blind"), "what Look is there for")

	write("program/more.go", "package main\n")
	require.False(t, cached("looks"), "the program got another file")
}

// TestUnknownPackage names what cannot be listed.
func TestUnknownPackage(t *testing.T) {
	require.ErrorContains(t, Look("./missing"), "./missing")
}
