package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// ErrWALNotArchived: a restore in place would remove WAL that is in no
// repository; the error is an *UnarchivedError.
var ErrWALNotArchived = errors.New("pg_wal holds WAL that is in no repository")

// UnarchivedError names the WAL in the data directory that no repository has.
type UnarchivedError struct {
	Dir      string       // of pg_wal, as it was found
	Segments []Unarchived // by name
	// Histories are history files that are in no repository.
	Histories []string
	// Unread are repositories that did not answer: they may have it.
	Unread []string
}

// Unarchived is a segment of pg_wal that no repository has, or that goes
// further than what the repositories have of it.
type Unarchived struct {
	Segment pg.SegmentName
	// ValidTo is the end of its records, and Last the last transaction in it,
	// if it was read: that is the last one of each timeline. Else zero.
	ValidTo pg.LSN
	Last    time.Time
}

// Is makes errors.Is(err, ErrWALNotArchived) true.
func (e *UnarchivedError) Is(target error) bool { return target == ErrWALNotArchived }

func (e *UnarchivedError) Error() string {
	const some = 8
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s. A restore in place would remove it:", ErrWALNotArchived, e.Dir)
	list := func(s string, i, n int) {
		switch {
		case n <= some || i < some-1 || i == n-1:
			b.WriteString("\n  " + s)
		case i == some-1:
			fmt.Fprintf(&b, "\n  … %d more …", n-some)
		}
	}
	for i, h := range e.Histories {
		list(h, i, len(e.Histories))
	}
	for i, s := range e.Segments {
		text := string(s.Segment)
		if s.ValidTo != 0 {
			text += ", records up to " + s.ValidTo.String()
		}
		if !s.Last.IsZero() {
			text += ", last transaction " + showTime(s.Last, time.UTC)
		}
		list(text, i, len(e.Segments))
	}
	if len(e.Unread) > 0 {
		fmt.Fprintf(&b, "\nNot asked, because they do not answer: %s.", strings.Join(e.Unread, ", "))
	}
	fmt.Fprintf(&b, "\nArchive it first:\n  walkeep wal push %s\nor, if it is not wanted, restore with --discard-wal. Nothing was touched", shellWord(e.Dir))
	return b.String()
}

// checkWAL refuses a restore in place that would remove WAL which is nowhere
// else: of a crashed server, what it had not archived yet; of an old primary,
// what it wrote after another was promoted. What the server marked in
// archive_status does not count, only what the repositories hold: a mark can
// be wrong (a standby marks what it receives, whoever archives it), and one
// repository can have lost what another has.
func (r *run) checkWAL(ctx context.Context) error {
	dirs := walDirs(r.opts.PGData, r.dest["pg_wal"])
	if r.opts.DiscardWAL || len(dirs) == 0 {
		return nil
	}
	u := &unarchived{id: r.plan.SystemID, size: r.plan.SegmentSize}
	unread := u.ask(ctx, r.plan.epoch, r.opts.Archives, r.opts.Log)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, dir := range dirs {
		segments, histories, err := u.in(ctx, dir)
		if err != nil {
			return err
		}
		if len(segments)+len(histories) > 0 {
			return &UnarchivedError{Dir: dir, Segments: segments, Histories: histories, Unread: unread}
		}
	}
	return nil
}

// walDirs are the directories with WAL that a restore in place clears: where
// pg_wal is, and where it will be.
func walDirs(pgdata, mapped string) []string {
	var dirs []string
	var seen []fs.FileInfo
	for _, d := range []string{filepath.Join(pgdata, "pg_wal"), mapped} {
		st, err := os.Stat(d) // behind a link
		if d == "" || err != nil || !st.IsDir() || slices.ContainsFunc(seen, func(o fs.FileInfo) bool { return os.SameFile(o, st) }) {
			continue
		}
		seen, dirs = append(seen, st), append(dirs, d)
	}
	return dirs
}

// unarchived finds WAL that none of several repositories has.
type unarchived struct {
	id    pg.SystemID
	size  pg.SegmentSize
	holds []held
}

// held is what a repository has.
type held struct {
	repo.Holdings
	epoch *repo.Epoch
}

// ask reads what the repositories hold, and returns those that do not answer.
func (u *unarchived) ask(ctx context.Context, planned *repo.Epoch, all []*repo.Repository, log *zap.Logger) (unread []string) {
	var epochs []*repo.Epoch
	for _, r := range all {
		epochs = append(epochs, r.Epoch(u.id))
	}
	if len(epochs) == 0 {
		epochs = []*repo.Epoch{planned}
	}
	for _, e := range epochs {
		h, err := e.Holdings(ctx)
		switch {
		case errors.Is(err, repo.ErrNotFound): // nothing of this cluster
		case err != nil:
			name := e.Repository().Name()
			log.Warn("cannot tell which WAL a repository has", zap.String("repo", name), zap.Error(err))
			unread = append(unread, name)
		default:
			u.holds = append(u.holds, held{h, e})
		}
	}
	return unread
}

// in lists what of a directory is nowhere. Files that the server keeps for
// later use are not WAL. Only the last segment of a timeline can be incomplete,
// and is read to see how far it goes; of the others a look at the first page
// tells enough.
func (u *unarchived) in(ctx context.Context, dir string) (segments []Unarchived, histories []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("look for WAL that is not archived: %w", err)
	}
	var lacking []pg.SegmentName
	for _, e := range entries { // sorted by name
		name := e.Name()
		switch pg.KindOf(name) {
		case pg.FileHistory:
			st, err := e.Info()
			if err != nil {
				return nil, nil, fmt.Errorf("look for WAL that is not archived: %w", err)
			}
			// Nothing is lost with an empty one, as a failed pg_rewind leaves it.
			if t, _ := pg.ParseTimeline(strings.TrimSuffix(name, ".history")); st.Size() > 0 && !u.hasHistory(t) {
				histories = append(histories, name)
			}
		case pg.FileSegment:
			segment := pg.SegmentName(name)
			if u.has(segment) {
				continue
			}
			if begun, err := u.begun(dir, segment); err != nil {
				return nil, nil, err
			} else if begun {
				lacking = append(lacking, segment)
			}
		}
	}
	for i, s := range lacking {
		if i+1 < len(lacking) && lacking[i+1].Timeline() == s.Timeline() {
			segments = append(segments, Unarchived{Segment: s})
			continue
		}
		one, counts, err := u.last(ctx, dir, s)
		if err != nil {
			return nil, nil, err
		}
		if counts {
			segments = append(segments, one)
		}
	}
	return segments, histories, nil
}

func (u *unarchived) has(name pg.SegmentName) bool {
	return slices.ContainsFunc(u.holds, func(h held) bool {
		return h.Has(name) || inConflict(h.Holdings, pg.FileSegment, name)
	})
}

func (u *unarchived) hasHistory(t pg.Timeline) bool {
	return slices.ContainsFunc(u.holds, func(h held) bool { _, ok := h.Histories[t]; return ok })
}

// hasPartial reports whether what is valid of an incomplete segment is stored.
func (u *unarchived) hasPartial(name pg.SegmentName, validTo pg.LSN) bool {
	return slices.ContainsFunc(u.holds, func(h held) bool {
		return slices.ContainsFunc(h.Partials, func(p repo.Partial) bool { return p.Segment == name && p.ValidTo >= validTo }) ||
			inConflict(h.Holdings, pg.FilePartial, name)
	})
}

// inConflict reports whether a repository keeps a file of that name beside
// what has the name: people were told then.
func inConflict(h repo.Holdings, kind pg.FileKind, name pg.SegmentName) bool {
	return slices.ContainsFunc(h.Conflicts, func(c repo.Conflict) bool { return c.Name.Kind == kind && c.Name.Name == string(name) })
}

// begun reports whether the server has begun to write a segment.
func (u *unarchived) begun(dir string, name pg.SegmentName) (bool, error) {
	f, err := os.Open(filepath.Join(dir, string(name)))
	if err != nil {
		return false, fmt.Errorf("look for WAL that is not archived: %w", err)
	}
	defer f.Close()
	head := make([]byte, wal.FirstPageSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if wal.CheckFirst(head[:n], name, u.size, u.id) != nil {
		return false, nil
	}
	if wal.FirstTimeline(head) < name.Timeline() { // a promotion in it, or kept for later use
		_, err = wal.Examine(io.MultiReader(bytes.NewReader(head[:n]), f), name, u.size, wal.Options{SystemID: u.id})
		return !errors.Is(err, wal.ErrWrongPage), nil
	}
	return true, nil
}

// last reads the last segment of a timeline. It counts unless what is in it is
// stored as a partial segment or on the timeline that followed, or it is not
// complete and nothing in it is worth keeping: a server that is stopped writes a
// checkpoint, and its segment is never archived.
func (u *unarchived) last(ctx context.Context, dir string, name pg.SegmentName) (one Unarchived, counts bool, err error) {
	f, err := os.Open(filepath.Join(dir, string(name)))
	if err != nil {
		return one, false, fmt.Errorf("look for WAL that is not archived: %w", err)
	}
	defer f.Close()
	prepared := false
	rep, err := wal.Examine(f, name, u.size, wal.Options{SystemID: u.id, Visit: func(r *wal.Record) error {
		prepared = prepared || r.IsPrepare()
		return nil
	}})
	var damaged *wal.DamagedError
	switch {
	case errors.As(err, &damaged): // as far as it is valid
	case errors.Is(err, wal.ErrNotWAL), errors.Is(err, wal.ErrWrongPage):
		return one, false, nil
	case err != nil:
		return one, false, fmt.Errorf("look for WAL that is not archived: %w", err)
	}
	one = Unarchived{Segment: name, ValidTo: rep.ValidTo, Last: rep.LastCommit}
	worth := rep.Complete || rep.MaxXID != 0 || prepared || len(rep.RestorePoints) > 0
	if !worth || u.hasPartial(name, rep.ValidTo) {
		return one, false, nil
	}
	followed, err := u.followed(ctx, f, name, rep.ValidTo)
	if err != nil {
		return one, false, fmt.Errorf("look for WAL that is not archived: %w", err)
	}
	return one, !followed, nil
}

// followed reports whether what is valid of an incomplete segment is the beginning
// of the one that a later timeline has in its place: whoever is promoted copies what
// he has of the segment that he was in (XLogInitNewTimeline in xlog.c). It is compared,
// because two servers may have written the timeline.
func (u *unarchived) followed(ctx context.Context, f io.ReaderAt, name pg.SegmentName, validTo pg.LSN) (bool, error) {
	n, err := name.Number(u.size)
	if err != nil {
		return false, err
	}
	for _, h := range u.holds {
		for _, next := range h.successors(name.Timeline(), validTo) {
			there := u.size.Name(next, n)
			if !h.Has(there) {
				continue
			}
			same := &comparison{with: io.NewSectionReader(f, 0, int64(validTo-u.size.Start(n)))}
			if _, err := h.epoch.GetWAL(ctx, repo.SegmentFile(there), same); err == nil && same.equal() {
				return true, nil
			} else if err := ctx.Err(); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// successors are the timelines that followed another one at a switch point that is not
// before an LSN.
func (h held) successors(t pg.Timeline, from pg.LSN) (all []pg.Timeline) {
	for _, history := range h.Histories {
		for i, e := range history.Entries {
			if e.Timeline != t || e.End < from {
				continue
			}
			if i+1 < len(history.Entries) {
				all = append(all, history.Entries[i+1].Timeline)
			} else {
				all = append(all, history.Timeline)
			}
		}
	}
	return all
}

// comparison compares what is written to it with the bytes of a reader, as far as
// that goes.
type comparison struct {
	with    io.Reader
	buf     []byte
	differs bool
}

func (c *comparison) Write(b []byte) (int, error) {
	if cap(c.buf) < len(b) {
		c.buf = make([]byte, len(b))
	}
	n, err := io.ReadFull(c.with, c.buf[:len(b)])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	c.differs = c.differs || !bytes.Equal(c.buf[:n], b[:n])
	return len(b), nil
}

// equal reports whether all bytes of the reader were compared, and are the same.
func (c *comparison) equal() bool {
	_, err := io.ReadFull(c.with, make([]byte, 1))
	return !c.differs && errors.Is(err, io.EOF)
}
