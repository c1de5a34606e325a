package archive

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// File is a file of pg_wal that is to be archived, opened. It is read as far
// as a push needs it, and at most once for all repositories: one that a
// repository has already is hashed, one that it lacks is examined. Its methods
// may be called from many goroutines.
type File struct {
	kind pg.FileKind // by its name
	base string      // its name
	size int64       // when it was opened, bytes

	mu         sync.Mutex // guards what follows
	l          *local
	sum        string // digest of the whole file; "" before it is known
	examined   bool
	examineErr error
}

// Open opens the file at path for [Archive.PushTo]. Close it. What costs
// little is checked at once: the name, and that it lies in the data directory
// of the right cluster; history files wholly. Errors: *RefusedError, those of
// the operating system.
func (a *Archive) Open(path string) (*File, error) {
	l, kind, err := a.open(path)
	if err != nil {
		return nil, err
	}
	f := &File{kind: kind, base: filepath.Base(path), l: l}
	info, err := l.file.Stat()
	if err == nil {
		f.size = info.Size()
		// Only its pages tell of which cluster a segment outside a data
		// directory is, and nothing can be asked of a repository without that.
		if kind != pg.FileSegment || l.head.SystemID == 0 {
			err = f.examine(nil)
		}
	}
	if err != nil {
		_ = f.Close() // it was only read
		return nil, err
	}
	return f, nil
}

// Close closes the file.
func (f *File) Close() error { return f.l.file.Close() }

// Path is where the file is.
func (f *File) Path() string { return f.l.path }

// Name is what the file is archived as. An incomplete segment becomes a
// partial one, whatever it is called; that is known after a push.
func (f *File) Name() repo.WALName {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.examined && f.examineErr == nil {
		return f.l.head.WALName()
	}
	return repo.WALName{Kind: f.kind, Name: f.base}
}

// systemID is 0 for a history file of an unknown cluster.
func (f *File) systemID() pg.SystemID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.l.head.SystemID
}

// examine judges the file, once. After it, and only without an error, f.l is
// whole and does not change any more. into is the repository that lacks it, if
// one is known to.
func (f *File) examine(into *repo.Repository) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.examined {
		f.examined, f.examineErr = true, f.l.examine(f.kind, into)
	}
	return f.examineErr
}

// is reports whether the file has, byte for byte, the content that an archived
// one has: then all that was ever examined in that holds for this.
func (f *File) is(stored repo.WALHead) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.examined && f.examineErr == nil {
		return stored.XXH3 == f.l.head.XXH3 && stored.Length == f.l.head.Length, nil
	}
	if stored.Length != f.size {
		return false, nil
	}
	if f.sum == "" {
		var d wal.Digester
		if _, err := io.CopyBuffer(struct{ io.Writer }{&d}, io.NewSectionReader(f.l.file, 0, f.size), make([]byte, 256<<10)); err != nil {
			return false, fmt.Errorf("archive %s: %w", f.base, err)
		}
		f.sum = d.Digest().String()
	}
	return stored.XXH3 == f.sum, nil
}

// open opens the file at path. Close l.file.
func (a *Archive) open(path string) (*local, pg.FileKind, error) {
	base := filepath.Base(path)
	kind := pg.KindOf(base)
	if kind == pg.FileUnknown {
		return nil, 0, refused(path, "its name is none that PostgreSQL archives")
	}
	id, c, err := a.expect(path)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("archive %s: %w", base, err)
	}
	l := &local{path: path, file: f, control: c, pieces: a.pieces, unfinished: a.opts.Unfinished, head: repo.WALHead{Kind: repo.WALKind(kind), Name: base, SystemID: id}}
	if c != nil {
		l.major, l.size = c.Major(), c.SegmentSize
	}
	return l, kind, nil
}
