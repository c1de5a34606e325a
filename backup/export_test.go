package backup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

// What the tests with real servers share with the others.
var (
	ArchiveCommand = archiveCommand
	StartArchiver  = startArchiver
)

// ReadEntries reads a backup and returns its entries.
func ReadEntries(t testing.TB, e *repo.Epoch, label repo.Label) []repo.FileEntry {
	_, entries := readBackup(t, e, label)
	return entries
}

// RestoreBackup writes a backup into a directory, with the least effort.
// spaces maps tablespaces to new directories.
func RestoreBackup(t testing.TB, e *repo.Epoch, label repo.Label, dir string, spaces map[string]string) {
	files, entries := readBackup(t, e, label)
	for _, f := range entries {
		to := filepath.Join(dir, f.Path)
		switch f.Type {
		case repo.Directory:
			require.NoError(t, os.MkdirAll(to, 0o700))
		case repo.Symlink:
			require.NoError(t, os.Symlink(spaces[filepath.Base(f.Path)], to))
		case repo.RegularFile:
			b := files[f.Path]
			if f.Path == "tablespace_map" {
				b = remap(string(b), spaces)
			}
			require.NoError(t, os.WriteFile(to, b, os.FileMode(f.Mode)))
		}
	}
}

func remap(m string, spaces map[string]string) []byte {
	var b strings.Builder
	for line := range strings.Lines(m) {
		oid, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if to, ok := spaces[oid]; ok {
			path = to
		}
		b.WriteString(oid + " " + path + "\n")
	}
	return []byte(b.String())
}
