package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// ErrSourceLacks: the source answered, and does not have the file.
var ErrSourceLacks = errors.New("the source does not have it")

// Source is a place that may still have WAL that a repository lacks: another
// repository, a node's pg_wal, a server that can stream it. What comes out of a
// source is examined before it is stored, so a source may be wrong: stale,
// recycled, another cluster's.
type Source interface {
	// Name says what it is, for people: "repo2", "pg_wal of pg-1".
	Name() string
	// Fetch writes the file's plain bytes to w, a segment in full length. The
	// kind is pg.FileSegment or pg.FileHistory. ErrSourceLacks: certainly not
	// there; every other error leaves that open. What was written before an
	// error is thrown away.
	Fetch(ctx context.Context, name repo.WALName, w io.Writer) error
}

// SiblingSource is another repository of the same cluster. What it yields was
// verified to the last byte.
func SiblingSource(e *repo.Epoch) Source { return sibling{e} }

type sibling struct{ e *repo.Epoch }

func (s sibling) Name() string { return s.e.Repository().Name() }

func (s sibling) Fetch(ctx context.Context, name repo.WALName, w io.Writer) error {
	_, err := s.e.GetWAL(ctx, name, w)
	if absent(err) {
		// Is it the repository that we think it is?
		if _, err := s.e.Repository().Marker(ctx); err != nil && !absent(err) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrSourceLacks, err)
	}
	return err
}

// DirSource is the pg_wal directory of a node on this machine. name is for
// people.
func DirSource(name, pgWAL string) Source { return dirSource{name, pgWAL} }

type dirSource struct{ name, dir string }

func (s dirSource) Name() string { return s.name }

func (s dirSource) Fetch(ctx context.Context, name repo.WALName, w io.Writer) error {
	if k := pg.KindOf(name.Name); k != name.Kind || k != pg.FileSegment && k != pg.FileHistory {
		return fmt.Errorf("fetch %q: neither a segment nor a history file", name.Name)
	}
	f, err := os.Open(filepath.Join(s.dir, name.Name))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(s.dir); err != nil {
			return err
		}
		return fmt.Errorf("%w: %w", ErrSourceLacks, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("read %s: not a regular file", f.Name())
	}
	if err == nil {
		_, err = io.Copy(w, io.LimitReader(&ctxReader{ctx, f}, maxSegment+1))
	}
	return err
}

// maxSegment is the largest wal_segment_size, bytes.
const maxSegment = 1 << 30

// ctxReader ends with ctx.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
