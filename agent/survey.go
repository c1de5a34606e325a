package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
)

// identity tells a file from another one of the same name, and from itself
// before it was written to.
type identity struct {
	inode    uint64
	size     int64
	modified int64 // nanoseconds
}

func identityOf(i fs.FileInfo) identity {
	id := identity{size: i.Size(), modified: i.ModTime().UnixNano()}
	if st, ok := i.Sys().(*syscall.Stat_t); ok {
		id.inode = st.Ino
	}
	return id
}

// mark is what archive_status says of a file.
type mark int

const (
	unmarked mark = iota
	ready         // the server wants it archived
	done          // the server thinks that it is, or need not be
)

// walFile is a file of pg_wal.
type walFile struct {
	name     string
	kind     pg.FileKind
	id       identity
	mark     mark
	timeline pg.Timeline
	number   pg.SegmentNo // of a segment or partial one
}

// finding is a file that is to be archived.
type finding struct {
	walFile
	// forked: a timeline goes on elsewhere from this segment or before it, so
	// that other nodes may have other content under this name.
	forked bool
}

// quiet is how long a timeline's last segment must not have been written to
// before it is examined.
const quiet = 2 * time.Second

// surveyor looks through pg_wal. One goroutine uses it.
type surveyor struct {
	dir    string // pg_wal
	opts   *Options
	rested map[string]resting
	lock   *lock // of the data directory
}

// own makes sure that no other agent serves the data directory: two would do
// all work twice. ErrRunning. A directory that is not there yet, or on a file
// system without such locks, is nobody's.
func (s *surveyor) own(pgdata string) error {
	if s.lock.holds(pgdata) {
		return nil
	}
	s.lock.release()
	var err error
	s.lock, err = lockDir(pgdata)
	if errors.Is(err, ErrRunning) {
		return err
	}
	return nil
}

// resting is a last segment that nothing is known to follow.
type resting struct {
	id    identity
	since time.Time // seen with this identity
	cut   bool      // examined: it ends early
}

// pgWAL is the state of pg_wal at one moment.
type pgWAL struct {
	files   []walFile // by name
	control pg.Control
	forks   map[pg.Timeline]pg.LSN // the earliest point where another timeline leaves this one
	origins map[pg.Timeline]pg.History

	first map[string]bool // memo of begun
}

// read lists pg_wal.
func (s *surveyor) read(control pg.Control) (*pgWAL, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("look through pg_wal: %w", err)
	}
	marks, err := s.marks()
	if err != nil {
		return nil, err
	}
	w := &pgWAL{control: control, forks: map[pg.Timeline]pg.LSN{}, origins: map[pg.Timeline]pg.History{}, first: map[string]bool{}}
	for _, e := range entries {
		kind := pg.KindOf(e.Name())
		if kind == pg.FileUnknown || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look through pg_wal: %w", err)
		}
		f, ok := newWALFile(e.Name(), kind, info, control.SegmentSize)
		if !ok {
			continue
		}
		f.mark = marks[f.name]
		w.files = append(w.files, f)
		if kind == pg.FileHistory {
			w.addForks(filepath.Join(s.dir, f.name), f.timeline)
		}
	}
	return w, nil
}

func newWALFile(name string, kind pg.FileKind, info fs.FileInfo, size pg.SegmentSize) (walFile, bool) {
	f := walFile{name: name, kind: kind, id: identityOf(info)}
	var err error
	if f.timeline, err = pg.ParseTimeline(name[:8]); err != nil {
		return f, false
	}
	if kind != pg.FileHistory {
		f.number, err = pg.SegmentName(name[:24]).Number(size)
	}
	return f, err == nil
}

// marks reads archive_status. A server without the directory has no marks.
func (s *surveyor) marks() (map[string]mark, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "archive_status"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look through archive_status: %w", err)
	}
	marks := map[string]mark{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".ready"); ok {
			marks[name] = ready
		} else if name, ok := strings.CutSuffix(e.Name(), ".done"); ok {
			marks[name] = done
		}
	}
	return marks, nil
}

// maxHistory is the longest history file that is looked into, bytes.
const maxHistory = 1 << 20

// addForks notes where a history file says that timelines were left. One that
// cannot be read says nothing: whether it may be archived is decided elsewhere.
func (w *pgWAL) addForks(path string, t pg.Timeline) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHistory))
	if err != nil {
		return
	}
	h, err := pg.ParseHistory(t, b)
	if err != nil {
		return
	}
	w.origins[t] = h
	for _, e := range h.Entries {
		if at, ok := w.forks[e.Timeline]; !ok || e.End < at {
			w.forks[e.Timeline] = e.End
		}
	}
}

// begun reports whether the server has begun to write a segment: its first page
// is what the name says. Each file is asked once in a survey.
func (s *surveyor) begun(w *pgWAL, name string) (bool, error) {
	if known, ok := w.first[name]; ok {
		return known, nil
	}
	err := s.checkFirst(w, name)
	if err != nil && !errors.Is(err, wal.ErrNotWAL) && !errors.Is(err, wal.ErrWrongPage) && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	w.first[name] = err == nil
	return err == nil, nil
}

func (s *surveyor) checkFirst(w *pgWAL, name string) error {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	var b [wal.FirstPageSize]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return err
	}
	if err := wal.CheckFirst(b[:n], pg.SegmentName(name), w.control.SegmentSize, w.control.SystemID); err != nil {
		return err
	}
	if t := wal.FirstTimeline(b[:n]); w.later(pg.SegmentName(name), t) {
		return fmt.Errorf("%w: its first page is of timeline %d", wal.ErrWrongPage, t)
	}
	return nil
}

// later reports whether a segment whose first page is of timeline t is kept for
// later use: its own timeline did not leave t in this segment. Without the
// history file that is not known.
func (w *pgWAL) later(name pg.SegmentName, t pg.Timeline) bool {
	h, ok := w.origins[name.Timeline()]
	if !ok || t == name.Timeline() {
		return false
	}
	n, err := name.Number(w.control.SegmentSize)
	return err == nil && !slices.ContainsFunc(h.Entries, func(e pg.HistoryEntry) bool {
		return e.Timeline == t && w.control.SegmentSize.SegmentOf(e.End) == n
	})
}

// survey finds the files of pg_wal that are to be archived, but for those that
// settled knows. The error is of a single file that could not be looked at, or
// joins several; the findings stand nevertheless.
func (s *surveyor) survey(ctx context.Context, w *pgWAL, settled func(string, identity) bool) ([]finding, error) {
	var found []finding
	var errs []error
	seen := map[string]bool{}
	for _, f := range w.files {
		seen[f.name] = true
		if settled(f.name, f.id) {
			continue
		}
		ok, err := s.wanted(ctx, w, f)
		if err != nil {
			errs = append(errs, fmt.Errorf("look at %s: %w", f.name, err))
		}
		if ok {
			found = append(found, finding{walFile: f, forked: w.forked(f)})
		}
	}
	for name := range s.rested {
		if !seen[name] {
			delete(s.rested, name)
		}
	}
	return found, errors.Join(errs...)
}

// forked reports whether the file's timeline was left in it or before it.
func (w *pgWAL) forked(f walFile) bool {
	at, ok := w.forks[f.timeline]
	return ok && f.kind != pg.FileHistory && w.control.SegmentSize.SegmentOf(at) <= f.number
}

// wanted reports whether a file is to be archived now.
func (s *surveyor) wanted(ctx context.Context, w *pgWAL, f walFile) (bool, error) {
	switch f.kind {
	case pg.FileHistory, pg.FilePartial:
		return true, nil
	case pg.FileBackupLabel:
		// Written when the backup ends, in one go, and marked.
		return f.mark != unmarked, nil
	}
	if f.id.size != int64(w.control.SegmentSize) && f.mark == unmarked {
		return false, nil // being made
	}
	begun, err := s.begun(w, f.name)
	if err != nil || !begun {
		return false, err
	}
	next := string(w.control.SegmentSize.Name(f.timeline, f.number+1))
	if w.has(next) {
		if follows, err := s.begun(w, next); err == nil && follows {
			delete(s.rested, f.name)
			return true, nil
		}
	}
	return s.last(ctx, w, f)
}

func (w *pgWAL) has(name string) bool {
	_, ok := slices.BinarySearchFunc(w.files, name, func(f walFile, name string) int { return strings.Compare(f.name, name) })
	return ok
}

// last decides about a segment that nothing is known to follow: as a rule the
// one that is being written. It is examined when its mark says that it is
// finished (which is wrong for the last segment that a standby received), or
// when it has rested for a while; and again when it was written to.
func (s *surveyor) last(ctx context.Context, w *pgWAL, f walFile) (bool, error) {
	now := s.opts.Clock()
	r, ok := s.rested[f.name]
	if !ok || r.id != f.id {
		r = resting{id: f.id, since: now}
		s.rested[f.name] = r
	}
	if !r.cut {
		if f.mark == unmarked && now.Sub(r.since) < quiet {
			return false, nil
		}
		complete, err := s.complete(ctx, w, f)
		if err != nil {
			return false, err
		}
		if complete {
			delete(s.rested, f.name)
			return true, nil
		}
		r.cut = true
		s.rested[f.name] = r
	}
	// It ends early. If its timeline goes on elsewhere it will end so for ever,
	// and is kept as a partial one.
	return w.forked(f) && now.Sub(r.since) >= quiet, nil
}

// complete examines a segment. One that is damaged is as good as complete here:
// the push will refuse it and say why.
func (s *surveyor) complete(ctx context.Context, w *pgWAL, f walFile) (bool, error) {
	file, err := os.Open(filepath.Join(s.dir, f.name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	r, err := wal.Examine(contextReader{ctx, file}, pg.SegmentName(f.name), w.control.SegmentSize, wal.Options{SystemID: w.control.SystemID})
	switch {
	case errors.Is(err, wal.ErrNotWAL), errors.Is(err, wal.ErrWrongPage):
		return false, nil
	case errors.As(err, new(*wal.DamagedError)):
		return f.mark != unmarked, nil
	}
	return r.Complete, err
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
