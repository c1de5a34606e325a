package wal

import (
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
	Digest Digest
	// RecordsDigest is the digest of the bytes before ValidTo, if Complete:
	// two segments where it agrees differ in padding at most.
	RecordsDigest Digest
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
	x := Begin(name, size, opts)
	defer x.Close()
	free := make(chan []byte, buffers)
	for range buffers {
		free <- make([]byte, chunk)
	}
	for {
		buf := <-free
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := x.Next(buf[:n], func() { free <- buf }); err != nil {
				return x.report, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return x.Finish()
		}
		if err != nil {
			return x.report, fmt.Errorf("read WAL segment %s: %w", name, err)
		}
	}
}

// ExamineBytes is [Examine] of a segment in memory, which is read where it is.
func ExamineBytes(b []byte, name pg.SegmentName, size pg.SegmentSize, opts Options) (Report, error) {
	x := Begin(name, size, opts)
	defer x.Close()
	for part := range slices.Chunk(b, chunk) {
		if err := x.Next(part, nil); err != nil {
			return x.report, err
		}
	}
	return x.Finish()
}

// Examination is an [Examine] of which the caller does the reading. Close it.
type Examination struct {
	report   Report
	name     pg.SegmentName
	size     pg.SegmentSize
	opts     Options
	changes  *collector // nil: not asked for
	walker   *walker
	digest   *digester
	prefixed bool // RecordsDigest is set
}

// Begin is the beginning of an [Examine]: Next takes the segment's bytes.
func Begin(name pg.SegmentName, size pg.SegmentSize, opts Options) *Examination {
	return &Examination{report: Report{Timeline: name.Timeline()}, name: name, size: size, opts: opts, digest: newDigester()}
}

// Next takes the next piece of the segment. All but the last have a length that
// is a multiple of every page size, 64 KiB. The piece is used, but not changed,
// until done is called, if it is not nil: on another goroutine as a rule, and
// never if there is an error.
func (x *Examination) Next(b []byte, done func()) error {
	if x.walker == nil {
		if err := x.start(b); err != nil {
			return err
		}
	}
	if x.report.Length+int64(len(b)) > int64(x.report.SegmentSize) {
		return fmt.Errorf("%w: longer than %d bytes", ErrWrongPage, x.report.SegmentSize)
	}
	w := x.walker
	for at := 0; at < len(b); at += w.blockMax {
		if len(b)-at < w.blockMax {
			break // and nobody looks at the rest
		}
		if err := w.page(b[at : at+w.blockMax]); err != nil {
			return err
		}
	}
	behind := b
	if w.mode == switched && !x.prefixed {
		n := int(int64(w.switchAt-x.report.Start) - x.report.Length)
		x.digest.parts <- part{b: b[:n], prefix: true}
		x.prefixed = true
		behind = b[n:]
	}
	x.digest.parts <- part{b: behind, done: done}
	x.report.Length += int64(len(b))
	return nil
}

// Close ends the examination, finished or not. No piece is used afterwards.
func (x *Examination) Close() { x.digest.close() }

// start reads the first page's header.
func (x *Examination) start(b []byte) error {
	if len(b) < longHeader {
		return fmt.Errorf("%w: only %d bytes", ErrNotWAL, len(b))
	}
	f, err := parseFirst(b, x.name, x.size, x.opts.SystemID)
	x.report.Major, x.report.SystemID = f.major, f.systemID
	if err != nil {
		return err
	}
	x.report.SegmentSize, x.report.Start, x.report.ValidTo = f.segmentSize, f.start, f.start
	if x.opts.Changes {
		x.changes = newCollector(f.major)
	}
	x.walker = &walker{
		first: f, name: x.name.Timeline(), blockMax: int(f.blockSize),
		end: f.start + pg.LSN(f.segmentSize), visit: x.record,
		timeline: f.timeline, next: f.start, validTo: f.start,
	}
	return nil
}

// record counts what the report wants to know, and calls the visitor.
func (x *Examination) record(r *Record) error {
	rep := &x.report
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
	if x.changes != nil {
		x.changes.record(r)
	}
	if x.opts.Visit != nil {
		return x.opts.Visit(r)
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

// Finish is called behind the last piece, and returns what Examine returns.
func (x *Examination) Finish() (Report, error) {
	w, rep := x.walker, &x.report
	if w == nil {
		return *rep, fmt.Errorf("%w: empty", ErrNotWAL)
	}
	if x.changes != nil {
		if w.open && !w.partial.headless {
			x.changes.border(&w.partial)
		}
		rep.Changes = x.changes.finish()
		rep.Changes.Rest = w.rest
	}
	full := rep.Length == int64(rep.SegmentSize)
	if full && w.foreign() {
		x.digest.close()
		return *rep, fmt.Errorf("%w: it is of timeline %d to its end, the name says %d: the server keeps the file for later use",
			ErrWrongPage, w.timeline, w.name)
	}
	rep.Complete = w.mode != stopped && full
	x.digest.close()
	rep.Digest = x.digest.sum.Digest()
	rep.RecordsDigest = x.digest.prefix
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
		rep.ValidTo, rep.RecordsDigest = w.end, rep.Digest
	}
	return *rep, nil
}
