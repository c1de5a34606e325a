package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// maxSmall bounds history and backup history files, bytes.
const maxSmall = 1 << 20

// maxInMemory is the longest segment that is read once, into memory, for all
// that is done with it; a longer one is read again for every repository.
const maxInMemory = 64 << 20

// local is a file to be pushed, examined.
type local struct {
	path    string
	file    *os.File
	control *pg.Control // of the data directory it lies in; nil: it lies in none
	// unfinished: it may be the segment that the server was writing.
	unfinished bool
	head       repo.WALHead
	major      int            // 0 if not known
	size       pg.SegmentSize // 0 if not known
	records    wal.Digest
	pieces     *pieces       // what the file is read into
	body       *repo.WALBody // what was examined, compressed; nil if it was not
}

// plain yields what is to be stored. Each call starts anew.
func (l *local) plain() io.Reader { return io.NewSectionReader(l.file, 0, l.head.Length) }

// put stores the file in a repository. Where it has to be read again, it is
// hashed again.
func (l *local) put(ctx context.Context, e *repo.Epoch) error {
	if l.body.Fits(e.Repository()) {
		return e.PutWALBody(ctx, l.head, l.body)
	}
	return e.PutWAL(ctx, l.head, l.plain())
}

// examine fills in the head of a file of that kind. A whole segment is also
// compressed, as repository r wants it: it is the one that lacks it.
func (l *local) examine(kind pg.FileKind, r *repo.Repository) error {
	if kind == pg.FileSegment || kind == pg.FilePartial {
		return l.examineSegment(pg.SegmentName(l.head.Name[:24]), kind, r)
	}
	return l.examineSmall(kind)
}

// examineSegment fills in the head of a segment, whole or partial.
func (l *local) examineSegment(name pg.SegmentName, kind pg.FileKind, into *repo.Repository) error {
	r, err := l.walk(name, into)
	switch {
	case err != nil && l.leftover(name, err):
		return leftoverError(name, err)
	case errors.Is(err, wal.ErrNotWAL), errors.Is(err, wal.ErrWrongPage),
		errors.As(err, new(*wal.OtherClusterError)), errors.As(err, new(*wal.DamagedError)):
		return &RefusedError{File: l.path, Err: err}
	case err != nil:
		return fmt.Errorf("archive %s: %w", name, err)
	}
	if kind == pg.FileSegment && !r.Complete && !l.unfinished && inUse(l.control, name) {
		return refused(l.path, "the server has finished it, but its records end at %s: %s", r.ValidTo, r.StopReason)
	}
	l.major, l.size, l.records = r.Major, r.SegmentSize, r.RecordsDigest
	l.head = headOf(name, r)
	if kind == pg.FileSegment && r.Complete {
		l.head.Changes = r.Changes
		return nil
	}
	return l.cutToPartial()
}

// walk reads the segment, once: each piece is looked at, hashed and compressed
// while the next ones are read, by as many cores as there are. What turns out to
// be incomplete was compressed in vain.
func (l *local) walk(name pg.SegmentName, into *repo.Repository) (wal.Report, error) {
	opts := wal.Options{SystemID: l.head.SystemID, Changes: true}
	info, err := l.file.Stat()
	if err != nil {
		return wal.Report{}, err
	}
	if info.Size() > maxInMemory || into == nil {
		return wal.Examine(l.file, name, l.size, opts)
	}
	l.pieces.enter()
	defer l.pieces.leave()
	x, body := wal.Begin(name, l.size, opts), into.CompressWAL()
	report, err := l.feed(x, body)
	x.Close()
	made, compressErr := body.End() // nothing reads the pieces any more
	if report.Complete && err == nil && compressErr == nil {
		l.body = made
	}
	return report, cmp.Or(err, compressErr)
}

// feed gives the file to both, piece by piece.
func (l *local) feed(x *wal.Examination, body *repo.WALCompressor) (wal.Report, error) {
	for at := int64(0); ; at += repo.WALFrame {
		p := l.pieces.take()
		n, err := l.file.ReadAt(p.b, at)
		if err != nil && err != io.EOF {
			p.giveBack()
			return wal.Report{}, err
		}
		if n > 0 {
			p.users.Store(2)
			body.Add(p.b[:n], p.giveBack)
			if err := x.Next(p.b[:n], p.giveBack); err != nil {
				p.giveBack()
				return wal.Report{}, err
			}
		} else {
			p.giveBack()
		}
		if n < len(p.b) {
			return x.Finish()
		}
	}
}

// inUse reports whether the server of pg_control c is a primary and writes the
// timeline of this segment. Such a server hands over finished segments only; a
// standby's walreceiver, and one that was just promoted, also hand over the
// unfinished last segment of the timeline that ended.
func inUse(c *pg.Control, name pg.SegmentName) bool {
	return c != nil && c.State == pg.StateProduction && c.Timeline == name.Timeline()
}

func headOf(name pg.SegmentName, r wal.Report) repo.WALHead {
	h := repo.WALHead{
		Kind: repo.WALKind(pg.FileSegment), Name: string(name), SystemID: r.SystemID, Timeline: name.Timeline(),
		SegmentSize: r.SegmentSize, PGMajor: r.Major,
		XXH3: r.Digest.String(), Length: r.Length,
		Start: r.Start, ValidTo: r.ValidTo, Complete: r.Complete,
		FirstCommit: timeOrNil(r.FirstCommit), LastCommit: timeOrNil(r.LastCommit), Commits: r.Commits,
		MinXID: r.MinXID, MaxXID: r.MaxXID,
	}
	if r.Complete && r.RecordsDigest != r.Digest {
		h.RecordsXXH3 = r.RecordsDigest.String()
	}
	for _, p := range r.RestorePoints {
		h.RestorePoints = append(h.RestorePoints, repo.RestorePoint{Name: p.Name, LSN: p.LSN, Time: p.Time})
	}
	return h
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// cutToPartial turns the head into that of a partial segment, of which only the
// valid part is stored: what lies behind it differs from node to node.
func (l *local) cutToPartial() error {
	l.head.Kind = repo.WALKind(pg.FilePartial)
	l.head.Length = int64(l.head.ValidTo - l.head.Start)
	var sum wal.Digester
	if _, err := io.Copy(&sum, l.plain()); err != nil {
		return fmt.Errorf("archive %s: %w", l.head.Name, err)
	}
	l.head.XXH3 = sum.Digest().String()
	return nil
}

// examineSmall fills in the head of a history or backup history file.
func (l *local) examineSmall(kind pg.FileKind) error {
	b, err := io.ReadAll(io.LimitReader(l.file, maxSmall+1))
	if err != nil {
		return fmt.Errorf("archive %s: %w", l.head.Name, err)
	}
	if len(b) > maxSmall {
		return refused(l.path, "longer than %d bytes", maxSmall)
	}
	timeline, err := pg.ParseTimeline(l.head.Name[:8])
	if err != nil {
		return refused(l.path, "%w", err)
	}
	l.head.Timeline = timeline
	if kind == pg.FileHistory {
		err = checkHistory(timeline, b)
	} else {
		err = l.checkLabel(b)
	}
	if err != nil {
		return &RefusedError{File: l.path, Err: err}
	}
	l.head.XXH3, l.head.Length = wal.DigestOf(b).String(), int64(len(b))
	return nil
}

// checkHistory refuses what no server writes: the history of timeline 2 or
// later names at least one ancestor, and every line ends in a newline. A file
// that a full disk cut off could lack either.
func checkHistory(t pg.Timeline, b []byte) error {
	h, err := pg.ParseHistory(t, b)
	switch {
	case err != nil:
		return err
	case len(h.Entries) == 0:
		return fmt.Errorf("%w: it names no ancestor", pg.ErrBadHistory)
	case b[len(b)-1] != '\n':
		return fmt.Errorf("%w: its last line is cut off", pg.ErrBadHistory)
	}
	return nil
}

// checkLabel refuses a backup history file that does not say when the backup
// ended, or is of another segment than its name says.
func (l *local) checkLabel(b []byte) error {
	label, err := pg.ParseBackupLabel(b)
	switch {
	case err != nil:
		return err
	case label.StopLSN == 0:
		return errors.New("backup history file without the end of the backup")
	case string(label.StartSegment) != l.head.Name[:24]:
		return fmt.Errorf("the backup began in segment %s", label.StartSegment)
	}
	l.head.Start = label.StartLSN
	return nil
}
