package backup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
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

// Hooked is a source whose files tell before they are read, and whose pg_control
// is torn at first.
func Hooked(s Source, read func(path string, off int64)) Source {
	return &hookedSource{Source: s, read: read}
}

type hookedSource struct {
	Source
	read     func(path string, off int64)
	controls atomic.Int32
}

type hookedFile struct {
	file
	path string
	read func(path string, off int64)
}

func (h *hookedSource) open(ctx context.Context, e entry) (file, error) {
	f, err := h.Source.open(ctx, e)
	if err != nil {
		return nil, err
	}
	return hookedFile{f, e.path, h.read}, nil
}

func (h *hookedSource) readFile(ctx context.Context, path string) ([]byte, error) {
	b, err := h.Source.readFile(ctx, path)
	if path == pg.ControlFile && h.controls.Add(1)%3 != 0 {
		b[100]++
	}
	return b, err
}

func (f hookedFile) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	f.read(f.path, off)
	return f.file.readAt(ctx, p, off)
}
