// Package verify finds out whether what a repository holds is whole.
//
// There are three levels. "exists": every manifest is the one that its summary
// names, every pack that it names is there with the right size, and the WAL behind
// each backup has no gap. "stored": besides, every pack and every WAL object is
// read, and has the digest that it should have. "full": besides, every chunk is
// decoded, every file has its size and CRC-32C, every page its checksum, and the
// records of every segment follow one another to its end.
//
// What was found to be whole is noted in the repository. Until it is due again,
// a run at the same or a lower level passes over reading it; that it exists
// is looked at always. So a daily run reads what is new, and what is due.
// [Options.Sample] reads a part of what is not due as well.
//
// A backup is marked as in use while it is read, so that it does not expire.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// Level says how much is looked at.
type Level string

// The levels; each does all that the one before does.
const (
	Exists Level = "exists"
	Stored Level = "stored"
	Full   Level = "full"
)

var depth = map[Level]int{Exists: 1, Stored: 2, Full: 3}

// Options of Run. Level is required.
type Options struct {
	Level Level
	// Due is how long what was verified need not be read again. 0: 30 days.
	Due time.Duration
	// Sample is the part of what is not due that is read all the same: 0 to 1.
	Sample float64
	// Random chooses the sample; nil: by chance.
	Random  *rand.Rand
	Workers int              // packs and segments read at a time; 0: 4
	Clock   func() time.Time // nil: time.Now
	Log     *zap.Logger      // nil: none
}

// Problem is something that is not as it should be.
type Problem struct {
	// Object is the key below the repository's prefix; of a gap, the segment.
	Object string     `json:"object"`
	Backup repo.Label `json:"backup,omitempty"` // through which it was found
	What   string     `json:"what"`
}

// Report is what Run found.
type Report struct {
	Repository string    `json:"repository"`
	Level      Level     `json:"level"`
	At         time.Time `json:"at"`
	Backups    int       `json:"backups"`
	Packs      int       `json:"packs"`    // that exist or not: looked at
	Segments   int       `json:"segments"` // archived
	// Read counts what was read at level stored and full; Skipped what was not
	// due.
	Read     Counts    `json:"read"`
	Skipped  Counts    `json:"skipped"`
	Problems []Problem `json:"problems"`
	// Notes are what could not be looked at here.
	Notes []string `json:"notes,omitempty"`
}

// Counts counts objects.
type Counts struct {
	Backups  int `json:"backups"`
	Packs    int `json:"packs"`
	Segments int `json:"segments"`
}

// Lines says the same for people: what was looked at, notes, problems.
func (r Report) Lines() []string {
	lines := []string{fmt.Sprintf("level %s: %d backups, %d packs, %d segments looked at; read %d backups, %d packs, %d segments; not due %d backups, %d segments",
		r.Level, r.Backups, r.Packs, r.Segments, r.Read.Backups, r.Read.Packs, r.Read.Segments, r.Skipped.Backups, r.Skipped.Segments)}
	for _, n := range r.Notes {
		lines = append(lines, "note: "+n)
	}
	for _, p := range r.Problems {
		where := ""
		if p.Backup != "" {
			where = " (backup " + string(p.Backup) + ")"
		}
		lines = append(lines, fmt.Sprintf("PROBLEM: %s: %s%s", p.Object, p.What, where))
	}
	return lines
}

// Run verifies a repository. Damage is in the report, and makes the error a
// repo.ErrIntegrity; other errors are those of the store.
func Run(ctx context.Context, r *repo.Repository, o Options) (Report, error) {
	if depth[o.Level] == 0 || o.Sample < 0 || o.Sample > 1 {
		return Report{}, fmt.Errorf("verify: level %q, sample %g: expected exists, stored or full, and 0 to 1", o.Level, o.Sample)
	}
	if o.Due == 0 {
		o.Due = 30 * 24 * time.Hour
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	at := o.Clock().UTC()
	v := &verifier{
		Options: o, r: r, note: repo.Verified{At: at, Level: string(o.Level)},
		report: Report{Repository: r.Name(), Level: o.Level, At: at, Problems: []Problem{}},
	}
	if err := v.run(ctx); err != nil {
		return v.report, err
	}
	if n := len(v.report.Problems); n > 0 {
		return v.report, fmt.Errorf("verify %s: %d problems, the first: %s: %s: %w", r.Name(), n, v.report.Problems[0].Object, v.report.Problems[0].What, repo.ErrIntegrity)
	}
	return v.report, nil
}

type verifier struct {
	Options
	r     *repo.Repository
	known []repo.Verified
	note  repo.Verified

	mu     sync.Mutex // guards report and note
	report Report
}

func (v *verifier) run(ctx context.Context) error {
	if _, err := v.r.Marker(ctx); errors.Is(err, repo.ErrNotFound) {
		return nil
	} else if err != nil {
		return v.damage("", err)
	}
	infos, err := v.r.Epochs(ctx)
	if err != nil {
		return v.damage("", err)
	}
	if v.known, err = v.r.VerifiedSince(ctx, v.report.At.Add(-v.Due)); err != nil {
		return err
	}
	for _, info := range infos {
		if err := v.epoch(ctx, v.r.Epoch(info.SystemID)); err != nil {
			return err
		}
	}
	// Noted at the end: a run that was killed has verified nothing.
	if v.Level == Exists || len(v.note.Backups)+len(v.note.WAL) == 0 {
		return nil
	}
	return v.r.PutVerified(ctx, v.note)
}

// damage makes problems of what is damage, and returns anything else.
func (v *verifier) damage(l repo.Label, err error) error {
	var d *repo.DamageError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &d):
		v.problem(Problem{Object: d.Key, Backup: l, What: d.Why})
		return nil
	}
	return err
}

func (v *verifier) problem(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verifier) epoch(ctx context.Context, e *repo.Epoch) error {
	h, err := e.Holdings(ctx)
	if err != nil {
		return err
	}
	for _, err := range flatten(h.Damaged) {
		if err := v.damage("", err); err != nil {
			return err
		}
	}
	seen := &packs{state: map[packName]error{}}
	for _, s := range h.Backups {
		if err := v.backup(ctx, e, s, seen); err != nil {
			return err
		}
		v.continuity(h, s)
	}
	return v.wal(ctx, e, h)
}

// flatten takes joined errors apart, down to those that name an object.
func flatten(err error) (list []error) {
	if _, ok := err.(*repo.DamageError); err == nil || ok {
		if err != nil {
			list = append(list, err)
		}
		return list
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			list = append(list, flatten(one)...)
		}
		return list
	}
	return []error{err}
}

// continuity looks for holes in the WAL from a backup on.
func (v *verifier) continuity(h repo.Holdings, s repo.Summary) {
	line := h.Line(s.Timeline)
	r := h.Reach(line, s.StartLSN)
	switch {
	case r.End < s.StopLSN:
		v.problem(Problem{Object: string(h.SegmentSize.Name(r.Timeline, r.Missing)), Backup: s.Label, What: "the segment is missing: the backup cannot be restored"})
	case r.Gap():
		v.problem(Problem{
			Object: string(h.SegmentSize.Name(r.Timeline, r.Missing)), Backup: s.Label,
			What: fmt.Sprintf("gap: the segment is missing, WAL goes on at %s", r.Beyond),
		})
	}
}

// due decides whether something is read, given that it was verified before.
func (v *verifier) due(verified bool) bool {
	return !verified || v.Random.Float64() < v.Sample
}

// wal reads the segments that are due. Those that a gap of retention keeps
// apart are as good as others.
func (v *verifier) wal(ctx context.Context, e *repo.Epoch, h repo.Holdings) error {
	for _, t := range h.Timelines() {
		for _, run := range h.Runs[t] {
			group, gctx := errgroup.WithContext(ctx)
			group.SetLimit(v.Workers)
			v.report.Segments += run.Segments
			if v.Level == Exists {
				continue
			}
			from, to := h.SegmentSize.SegmentOf(run.From), h.SegmentSize.SegmentOf(run.To)
			whole := make([]bool, to-from)
			for n := from; n < to; n++ {
				name := h.SegmentSize.Name(t, n)
				if !v.due(v.walVerified(e.SystemID(), name)) {
					v.report.Skipped.Segments++
					continue
				}
				group.Go(func() (err error) {
					whole[n-from], err = v.segment(gctx, e, name)
					return err
				})
			}
			if err := group.Wait(); err != nil {
				return err
			}
			for i, ok := range whole {
				name := h.SegmentSize.Name(t, from+pg.SegmentNo(i))
				switch {
				case !ok:
				case i > 0 && whole[i-1]:
					v.note.WAL[len(v.note.WAL)-1].Last = name
				default:
					v.note.WAL = append(v.note.WAL, repo.VerifiedWAL{SystemID: e.SystemID(), First: name, Last: name})
				}
			}
		}
	}
	return nil
}

func (v *verifier) segment(ctx context.Context, e *repo.Epoch, name pg.SegmentName) (whole bool, err error) {
	if v.Level == Full {
		err = v.walk(ctx, e, name)
	} else {
		_, err = e.GetWAL(ctx, repo.SegmentFile(name), io.Discard)
	}
	v.mu.Lock()
	if err == nil {
		v.report.Read.Segments++
	}
	v.mu.Unlock()
	switch {
	case errors.Is(err, repo.ErrNoIdentity):
		v.addNote("WAL was not read: no identity for data is configured here")
		return false, nil
	case errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity):
		return false, nil // it has expired since
	}
	return err == nil, v.damage("", err)
}

// walk reads a segment and walks through its records.
func (v *verifier) walk(ctx context.Context, e *repo.Epoch, name pg.SegmentName) error {
	r, w := io.Pipe()
	got := make(chan error, 1)
	go func() {
		_, err := e.GetWAL(ctx, repo.SegmentFile(name), w)
		w.CloseWithError(err)
		got <- err
	}()
	report, examined := wal.Examine(r, name, 0, wal.Options{SystemID: e.SystemID()})
	_, _ = io.Copy(io.Discard, r) // what follows the damage has a digest, too
	_ = r.Close()
	if err := <-got; err != nil {
		return err
	}
	key := fmt.Sprintf("%s/wal/%s/%s/%s", e.SystemID(), name[:8], name[8:16], name)
	switch {
	case examined != nil:
		return &repo.DamageError{Key: key, Why: examined.Error()}
	case !report.Complete:
		return &repo.DamageError{Key: key, Why: fmt.Sprintf("its records end at %s: %s", report.ValidTo, report.StopReason)}
	}
	return nil
}

func (v *verifier) addNote(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.report.Notes {
		if n == text {
			return
		}
	}
	v.report.Notes = append(v.report.Notes, text)
}

func (v *verifier) walVerified(id pg.SystemID, name pg.SegmentName) bool {
	for _, k := range v.known {
		if depth[Level(k.Level)] < depth[v.Level] {
			continue
		}
		for _, w := range k.WAL {
			if w.SystemID == id && w.First <= name && name <= w.Last {
				return true
			}
		}
	}
	return false
}
