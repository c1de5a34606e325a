package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
)

// maxSegment is the largest wal_segment_size, bytes.
const maxSegment = 1 << 30

// walFiles is pg_wal, and what was learned of its segments.
type walFiles struct {
	dir string // "" if there is none

	mu    sync.Mutex          // guards known; held while files are examined
	known map[string]examined // by name
}

// examined is what a segment was when it was examined.
type examined struct {
	size     int64
	modified time.Time
	complete bool
	validTo  pg.LSN
	ok       bool
}

func (s *Server) inventory(w http.ResponseWriter, r *http.Request) {
	if s.wal.dir == "" {
		problem(w, http.StatusNotFound, "this agent has no data directory")
		return
	}
	inv, err := s.wal.list(r.Context(), r.URL.Query().Get("examine") == "true")
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	reply(w, http.StatusOK, inv)
}

func (f *walFiles) list(ctx context.Context, examine bool) (Inventory, error) {
	inv := Inventory{Files: []File{}}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return inv, fmt.Errorf("list pg_wal: %w", err)
	}
	marks := f.marks()
	for _, e := range entries {
		if !knownName(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return inv, fmt.Errorf("list pg_wal: %w", err)
		}
		inv.Files = append(inv.Files, File{Name: e.Name(), Size: info.Size(), Modified: info.ModTime().UTC(), Mark: marks[e.Name()]})
	}
	if examine {
		err = f.examine(ctx, inv.Files)
	}
	return inv, err
}

func (f *walFiles) marks() map[string]string {
	marks := map[string]string{}
	entries, err := os.ReadDir(filepath.Join(f.dir, "archive_status"))
	if err != nil {
		return marks // a server that never archived has none
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext == ".ready" || ext == ".done" {
			marks[strings.TrimSuffix(e.Name(), ext)] = ext[1:]
		}
	}
	return marks
}

// examine fills in what the segments are. Each is read once, until it changes.
func (f *walFiles) examine(ctx context.Context, files []File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := map[string]examined{}
	for i := range files {
		file := &files[i]
		if pg.KindOf(file.Name) != pg.FileSegment {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e, known := f.known[file.Name]
		if !known || e.size != file.Size || !e.modified.Equal(file.Modified) {
			e = f.look(file)
		}
		now[file.Name] = e
		if e.ok {
			file.Complete, file.ValidTo = &e.complete, &e.validTo
		}
	}
	f.known = now // without those that are gone
	return nil
}

func (f *walFiles) look(file *File) examined {
	e := examined{size: file.Size, modified: file.Modified}
	o, _, err := f.open(file.Name)
	if err != nil {
		return e
	}
	defer o.Close()
	r, err := wal.Examine(io.LimitReader(o, maxSegment+1), pg.SegmentName(file.Name), 0, wal.Options{})
	e.ok, e.complete, e.validTo = err == nil, r.Complete, r.ValidTo
	return e
}

// open opens a regular file of pg_wal. Nothing else has a name that passes, and
// os.Root keeps a link from leading elsewhere.
func (f *walFiles) open(name string) (*os.File, fs.FileInfo, error) {
	if f.dir == "" || !knownName(name) {
		return nil, nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	// Without waiting for a writer, should it be a pipe.
	o, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := o.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxSegment) {
		err = fmt.Errorf("%s is no file of WAL: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, nil, errors.Join(err, o.Close())
	}
	return o, info, nil
}

// fetch sends one file. See the package comment for files that change.
func (s *Server) fetch(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !knownName(name) {
		problem(w, http.StatusNotFound, "not the name of a file that PostgreSQL archives")
		return
	}
	f, info, err := s.wal.open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem(w, http.StatusNotFound, name+" is not in pg_wal")
		return
	case err != nil:
		problem(w, http.StatusInternalServerError, fmt.Sprintf("open %s: %v", name, err))
		return
	}
	defer f.Close()
	sum, err := digest(io.NewSectionReader(f, 0, info.Size()), info.Size(), nil)
	if err != nil {
		problem(w, http.StatusConflict, fmt.Sprintf("%s changes while it is read: %v", name, err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	h.Set(digestHeader, formatDigest(sum))
	w.WriteHeader(http.StatusOK)
	again, err := digest(io.NewSectionReader(f, 0, info.Size()), info.Size(), w)
	if err != nil || !bytes.Equal(sum, again) {
		// Too late for a status: no end of the body is the error.
		panic(http.ErrAbortHandler)
	}
}

// digestHeader carries the SHA-256 of the body (RFC 9530).
const digestHeader = "Repr-Digest"

func formatDigest(sum []byte) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// digest is the SHA-256 of size bytes, which go to w too if there is one.
func digest(r io.Reader, size int64, w io.Writer) ([]byte, error) {
	h := sha256.New()
	to := io.Writer(h)
	if w != nil {
		to = io.MultiWriter(h, w)
	}
	// Not CopyBuffer's shortcuts: each write has a deadline of its own.
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return h.Sum(nil), err
}
