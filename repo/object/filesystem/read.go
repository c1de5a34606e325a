package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// openDir opens an existing directory, "" for the root, for reading. ENOENT if
// it, or one above it, is missing or not a directory.
func (s *Store) openDir(path string) (*os.File, error) {
	root, err := s.dirs.acquire("")
	if err != nil {
		return nil, err
	}
	defer s.dirs.release(root)
	at, err := openDirAt(root.File, ".")
	for path != "" && err == nil {
		var name string
		name, path, _ = strings.Cut(path, "/")
		var below *os.File
		below, err = openDirAt(at, name)
		_ = at.Close()
		at = below
	}
	switch {
	case isAny(err, unix.ENOTDIR, unix.ELOOP):
		// There is an object, or something that is none, so nothing lies below.
		return nil, unix.ENOENT
	case errors.Is(err, unix.ESTALE):
		s.dirs.forget("")
	}
	if err != nil {
		return nil, err
	}
	return at, nil
}

// find opens the directory of an object and describes the object there.
func (s *Store) find(ctx context.Context, key string) (dir *os.File, st unix.Stat_t, err error) {
	if err := ctx.Err(); err != nil {
		return nil, st, err
	}
	path, name := split(key)
	if dir, err = s.openDir(path); err != nil {
		return nil, st, err
	}
	if st, err = stat(dir, name); err == nil && !isRegular(st) {
		err = unix.ENOENT
	}
	if err == nil {
		err = settle(dir, st)
	}
	if err != nil {
		_ = dir.Close()
		return nil, st, err
	}
	return dir, st, nil
}

// settle makes sure that an entry that was seen is durable. More than one link
// says that its Put has not come so far, or never will (see the package comment).
func settle(dir *os.File, st unix.Stat_t) error {
	if st.Nlink == 1 {
		return nil
	}
	return syncDir(dir)
}

// look describes an object; ENOENT if there is none.
func (s *Store) look(ctx context.Context, key string) (object.Info, error) {
	dir, st, err := s.find(ctx, key)
	if err != nil {
		return object.Info{}, err
	}
	_ = dir.Close()
	return info(key, st), nil
}

// Stat implements [object.Reader].
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	if err := object.CheckKey(key); err != nil {
		return object.Info{}, err
	}
	got, err := s.look(ctx, key)
	if err != nil {
		return object.Info{}, s.explain("stat", key, err)
	}
	return got, nil
}

// Get implements [object.Reader].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := object.CheckKey(key); err != nil {
		return nil, err
	}
	r, err := s.get(ctx, key, offset, length)
	if err != nil {
		return nil, s.explain("get", key, err)
	}
	return r, nil
}

func (s *Store) get(ctx context.Context, key string, offset, length int64) (*reader, error) {
	dir, _, err := s.find(ctx, key)
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // read only
	_, name := split(key)
	f, err := openat(dir, name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	// Once more, of what is open: the key may have been replaced in between.
	st, err := statOpen(f)
	if err == nil && (offset < 0 || offset > st.Size || length < -1) {
		err = fmt.Errorf("%d+%d of %d bytes: %w", offset, length, st.Size, object.ErrBadRange)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	end := st.Size
	if length >= 0 && length < end-offset {
		end = offset + length
	}
	return &reader{ctx: ctx, file: f, key: key, at: offset, end: end}, nil
}

// reader yields the bytes [at, end) of a file.
type reader struct {
	ctx     context.Context
	file    *os.File
	key     string
	at, end int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.at >= r.end {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.end-r.at)]
	n, err := r.file.ReadAt(p, r.at)
	r.at += int64(n)
	if err == io.EOF && n < len(p) {
		// Nobody shortens a file that was put: the file system lost its end.
		err = fmt.Errorf("get %s: the file ends at %d, not at %d: %w", r.key, r.at, r.end, io.ErrUnexpectedEOF)
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

func (r *reader) Close() error { return r.file.Close() }
