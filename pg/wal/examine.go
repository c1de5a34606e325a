package wal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// Errors that Examine returns, wrapped with details.
var (
	// ErrNotWAL: the first page is not that of a segment of PostgreSQL 13 to
	// 18. Empty and zero-filled files are among these.
	ErrNotWAL = errors.New("not a WAL segment")
	// ErrWrongPage: a WAL segment, but not the one that the name says; also
	// one that is too long. A file that the server keeps for later use looks
	// like this.
	ErrWrongPage = errors.New("not the WAL segment that its name says")
)

// OtherClusterError: the segment belongs to another cluster.
type OtherClusterError struct{ Want, Got pg.SystemID }

func (e *OtherClusterError) Error() string {
	return fmt.Sprintf("WAL of another cluster: system identifier %s instead of %s", e.Got, e.Want)
}

// DamagedError: something inside the segment is broken, for valid WAL of the
// same segment lies behind it. Right after a crash of the operating system the
// segment that was being written can look like this too, until recovery has
// written it anew.
type DamagedError struct {
	At  pg.LSN // start of the record or page that is broken
	Why string
}

func (e *DamagedError) Error() string { return fmt.Sprintf("damaged at %s: %s", e.At, e.Why) }

// Options for Examine. The zero value checks what needs no outside knowledge.
type Options struct {
	// SystemID is the cluster that the segment must belong to; 0 = any.
	SystemID pg.SystemID
	// Visit, if set, is called for every record that starts and ends in the
	// segment, in order. Its error ends the examination and is returned.
	Visit func(*Record) error
	// Changes: gather what the records do to relations, see Report.Changes.
	Changes bool
	// Walked, if set, is called when all records have been looked at, with
	// what Report.Complete will be, while the digest is still being computed on
	// another core.
	Walked func(complete bool)
}

// Report is what a segment is and holds.
type Report struct {
	SystemID    pg.SystemID
	SegmentSize pg.SegmentSize // as the segment says, bytes
	Timeline    pg.Timeline    // in the name
	Major       int            // version of the server that wrote it, 13 to 18

	Start pg.LSN
	// ValidTo is the end of the last whole record, which is the end of the
	// switch record if there is one; the end of the segment if a record
	// continues into the next; Start if not even the record that continues
	// from the segment before ends here.
	ValidTo pg.LSN
	// Complete: records go to the end of the segment, or to a switch record
	// with padding after it, and the file has the full length.
	Complete bool
	Switched bool // there is a switch record
	// StopReason says, if the records end early, what was found instead of the
	// next one.
	StopReason string

	// Of the records that start and end in this segment. One that crosses into
	// the next is in neither segment's report.
	Records                 int
	Commits                 int // transactions committed, prepared ones too
	FirstCommit, LastCommit time.Time
	// MinXID and MaxXID are the oldest and youngest top-level transaction that
	// committed or aborted, in the wraparound order; 0 if none did.
	MinXID, MaxXID uint32
	RestorePoints  []RestorePoint
	// Changes are the block changes of the records up to ValidTo, if
	// Options.Changes asked for them.
	Changes *pg.BlockChanges

	Length int64 // bytes read
	SHA256 [sha256.Size]byte
	// RecordsSHA256 is the digest of the bytes before ValidTo, if Complete:
	// two segments where it agrees differ in padding at most.
	RecordsSHA256 [sha256.Size]byte
}

// chunk is how much is read, walked and hashed at a time: a multiple of every
// page size, and small enough to stay in a core's cache between the two.
const chunk = 256 << 10

// Examine reads a segment to its end and reports what it is. size is the
// segment size that the cluster is known to have, or 0 to take the segment's
// word. It needs constant memory, whatever the segment's size.
//
// Errors: ErrNotWAL, ErrWrongPage, *OtherClusterError, *DamagedError, those of
// r and of Options.Visit. The report is as far as it got; with a *DamagedError
// it is complete, with ValidTo at the last record before the damage. WAL that
// ends early is not an error: see Complete.
func Examine(r io.Reader, name pg.SegmentName, size pg.SegmentSize, opts Options) (Report, error) {
	e := examiner{report: Report{Timeline: name.Timeline()}, opts: opts, digest: newDigester(2 * buffers)}
	defer e.digest.close()
	e.digest.lend()
	for {
		buf := <-e.digest.free
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := e.chunk(buf[:n], buf, name, size); err != nil {
				return e.report, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return e.finish()
		}
		if err != nil {
			return e.report, fmt.Errorf("read WAL segment %s: %w", name, err)
		}
	}
}

// ExamineBytes is [Examine] of a segment in memory, which is read where it is.
func ExamineBytes(b []byte, name pg.SegmentName, size pg.SegmentSize, opts Options) (Report, error) {
	// The walk is faster than the digest, and never waits for it.
	e := examiner{report: Report{Timeline: name.Timeline()}, opts: opts, digest: newDigester(len(b)/chunk + 3)}
	defer e.digest.close()
	for part := range slices.Chunk(b, chunk) {
		if err := e.chunk(part, nil, name, size); err != nil {
			return e.report, err
		}
	}
	return e.finish()
}

type examiner struct {
	report   Report
	opts     Options
	changes  *collector // nil: not asked for
	walker   *walker
	digest   *digester
	cut      bool // the last page was not whole
	prefixed bool // RecordsSHA256 is set
}

// chunk takes the next piece, which lies in the buffer lent, if in any.
func (e *examiner) chunk(b, lent []byte, name pg.SegmentName, size pg.SegmentSize) error {
	if e.walker == nil {
		if err := e.start(b, name, size); err != nil {
			return err
		}
	}
	if e.report.Length+int64(len(b)) > int64(e.report.SegmentSize) {
		return fmt.Errorf("%w: longer than %d bytes", ErrWrongPage, e.report.SegmentSize)
	}
	w := e.walker
	for at := 0; at < len(b); at += w.blockMax {
		if len(b)-at < w.blockMax {
			e.cut = true
			break
		}
		if err := w.page(b[at : at+w.blockMax]); err != nil {
			return err
		}
	}
	behind := b
	if w.mode == switched && !e.prefixed {
		n := int(int64(w.switchAt-e.report.Start) - e.report.Length)
		e.digest.parts <- part{b: b[:n], prefix: true}
		e.prefixed = true
		behind = b[n:]
	}
	e.digest.parts <- part{b: behind, lent: lent}
	e.report.Length += int64(len(b))
	return nil
}

// start reads the first page's header.
func (e *examiner) start(b []byte, name pg.SegmentName, size pg.SegmentSize) error {
	if len(b) < longHeader {
		return fmt.Errorf("%w: only %d bytes", ErrNotWAL, len(b))
	}
	f, err := parseFirst(b, name, size, e.opts.SystemID)
	e.report.Major, e.report.SystemID = f.major, f.systemID
	if err != nil {
		return err
	}
	e.report.SegmentSize, e.report.Start, e.report.ValidTo = f.segmentSize, f.start, f.start
	if e.opts.Changes {
		e.changes = newCollector(f.major)
	}
	e.walker = &walker{
		first: f, name: name.Timeline(), blockMax: int(f.blockSize),
		end: f.start + pg.LSN(f.segmentSize), visit: e.record,
		timeline: f.timeline, next: f.start, validTo: f.start,
	}
	return nil
}

// record counts what the report wants to know, and calls the visitor.
func (e *examiner) record(r *Record) error {
	rep := &e.report
	rep.Records++
	switch r.RMID {
	case rmXact:
		if t, ok := r.transaction(rep.Major); ok {
			rep.addTransaction(t)
		}
	case rmXLOG:
		if p, ok := r.restorePoint(); ok {
			rep.RestorePoints = append(rep.RestorePoints, p)
		}
	}
	if e.changes != nil {
		e.changes.record(r)
	}
	if e.opts.Visit != nil {
		return e.opts.Visit(r)
	}
	return nil
}

func (rep *Report) addTransaction(t ended) {
	if t.xid != 0 {
		if rep.MinXID == 0 || xidPrecedes(t.xid, rep.MinXID) {
			rep.MinXID = t.xid
		}
		if rep.MaxXID == 0 || xidPrecedes(rep.MaxXID, t.xid) {
			rep.MaxXID = t.xid
		}
	}
	if !t.commit {
		return
	}
	rep.Commits++
	if rep.FirstCommit.IsZero() || t.at.Before(rep.FirstCommit) {
		rep.FirstCommit = t.at
	}
	if t.at.After(rep.LastCommit) {
		rep.LastCommit = t.at
	}
}

func (e *examiner) finish() (Report, error) {
	w, rep := e.walker, &e.report
	if w == nil {
		return *rep, fmt.Errorf("%w: empty", ErrNotWAL)
	}
	if e.changes != nil {
		if w.open && !w.partial.headless {
			e.changes.border(&w.partial)
		}
		rep.Changes = e.changes.finish()
		rep.Changes.Rest = w.rest
	}
	full := rep.Length == int64(rep.SegmentSize)
	if full && w.foreign() {
		e.digest.close()
		return *rep, fmt.Errorf("%w: it is of timeline %d to its end, the name says %d: the server keeps the file for later use",
			ErrWrongPage, w.timeline, w.name)
	}
	rep.Complete = w.mode != stopped && full
	if e.opts.Walked != nil {
		e.opts.Walked(rep.Complete)
	}
	e.digest.close()
	e.digest.sum.Sum(rep.SHA256[:0])
	rep.RecordsSHA256 = e.digest.prefix
	rep.ValidTo = w.validTo
	rep.Switched = w.mode == switched
	rep.StopReason = w.why
	switch {
	case w.mode == stopped && w.damaged:
		return *rep, &DamagedError{At: w.stopAt, Why: w.why}
	case w.mode == stopped:
	case !full:
		rep.StopReason = fmt.Sprintf("the file ends after %d of %d bytes", rep.Length, rep.SegmentSize)
	case !rep.Switched:
		rep.ValidTo, rep.RecordsSHA256 = w.end, rep.SHA256
	}
	return *rep, nil
}
