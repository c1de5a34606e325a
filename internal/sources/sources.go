// Package sources keeps Go's cache of test results honest.
//
// `go test` prints the result of an earlier run if the test program and the files
// that it opened or looked at are the same. A test that runs the program that it
// tests, or the go command, depends on sources that are not in the test program and
// that another process reads: it would be "ok (cached)" after a change that breaks
// it. Such a test calls [Look].
package sources

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Look looks at each file of this module that the packages are built from, with
// what they import, so that a result counts only as long as these are the same.
// Packages are named as for `go list`. Files of tests are not among them.
func Look(packages ...string) error {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json"}, packages...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the sources of %v: %w\n%s", packages, err, stderr.Bytes())
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("list the sources of %v: %w", packages, err)
		}
		if err := p.look(); err != nil {
			return err
		}
	}
}

// listed is what `go list -json` says about a package.
type listed struct {
	Dir    string
	Module *struct {
		Main  bool
		GoMod string
	}
	GoFiles, CgoFiles, IgnoredGoFiles, CFiles, HFiles, SFiles, EmbedFiles []string
}

func (p *listed) look() error {
	if p.Module == nil || !p.Module.Main {
		return nil // go.mod has the versions of the others
	}
	// The directory's time tells of files that come and go.
	paths := []string{p.Module.GoMod, p.Dir}
	for _, files := range [][]string{p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.CFiles, p.HFiles, p.SFiles, p.EmbedFiles} {
		for _, f := range files {
			paths = append(paths, filepath.Join(p.Dir, f))
		}
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil { // go test takes note of path, size, time of change
			return fmt.Errorf("look at sources: %w", err)
		}
	}
	return nil
}
