package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// RepairOptions say what to fill in, and from where. Target and Sources are
// required.
type RepairOptions struct {
	// Target is the repository that lacks something.
	Target *repo.Epoch
	// Missing are the segments that it lacks: [Coverage.Missing], or a part of it.
	Missing []repo.SegmentRange
	// Histories are the history files that it lacks. They come first.
	Histories []pg.Timeline
	// Sources are asked in this order, for each file anew.
	Sources []Source
	// DryRun: nothing is stored; see [Prober].
	DryRun bool
	// Workers is how many files are in transfer at a time. 0 = 4.
	Workers int
	// TempDir holds a file for each of them; "" = the system's.
	TempDir string
	Log     *zap.Logger // nil: none
}

// Prober is a Source that can tell cheaply whether it has a file. A dry run
// asks these, and calls the others possible.
type Prober interface {
	Has(ctx context.Context, name repo.WALName) (bool, error)
}

// RepairReport is what became of a repair.
type RepairReport struct {
	// Repaired files, in order of their names. In a dry run: that could be.
	Repaired []Repaired
	// Failed are those that no source could give, in the same order.
	Failed []Unrepaired
}

// Lines says the same for people.
func (r RepairReport) Lines() []string {
	lines := []string{fmt.Sprintf("%d repaired, %d could not be", len(r.Repaired), len(r.Failed))}
	for _, f := range r.Repaired {
		line := f.Name.File()
		if f.Source != "" {
			line += " from " + f.Source
		}
		lines = append(lines, line)
	}
	for _, f := range r.Failed {
		lines = append(lines, fmt.Sprintf("%s NOT: %s", f.Name.File(), f.Err))
	}
	return lines
}

// Repaired is a file that is there now.
type Repaired struct {
	Name   repo.WALName
	Source string // "" if it turned out to be there
	// Possible: in a dry run, a source that cannot be asked beforehand may have
	// it.
	Possible bool
}

// Unrepaired is a file that could not be brought.
type Unrepaired struct {
	Name repo.WALName
	Err  error // why not, source by source
	Lost bool  // every source answered, and does not have it
}

// Repair fills in what a repository lacks, from the first source that has it.
// What comes from a source is examined like a file that is pushed, and must
// besides be complete and of the timeline that the repository knows by that
// number: whatever a source holds, no WAL of another cluster, another branch,
// or a damaged or half-written segment gets into the archive.
//
// Every file is one put, if absent. Kill it anywhere: what was stored is right
// and stays, the rest is missing as before, and the next repair goes on with
// it. Two repairs at once, or one beside archiving nodes, do the same work once.
//
// An error means that the target failed, or ctx ended; the report is as far as
// it got. What no source has is in the report and is no error.
func Repair(ctx context.Context, o RepairOptions) (RepairReport, error) {
	info, err := o.Target.Info(ctx)
	if err != nil {
		return RepairReport{}, err
	}
	p := newRepairer(o, info)
	for _, t := range o.Histories {
		if err := p.file(ctx, repo.HistoryFile(t)); err != nil {
			return p.report, err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(o.Workers, 4))
	for _, r := range o.Missing {
		for n := r.First; n <= r.Last && gctx.Err() == nil; n++ {
			g.Go(func() error { return p.file(gctx, repo.SegmentFile(info.SegmentSize.Name(r.Timeline, n))) })
		}
	}
	err = g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	slices.SortFunc(p.report.Repaired, func(a, b Repaired) int { return cmp.Compare(a.Name.Name, b.Name.Name) })
	slices.SortFunc(p.report.Failed, func(a, b Unrepaired) int { return cmp.Compare(a.Name.Name, b.Name.Name) })
	return p.report, err
}

// repairer is one Repair.
type repairer struct {
	RepairOptions
	info   repo.EpochInfo
	pieces *pieces

	mu       sync.Mutex // guards what follows
	report   RepairReport
	failures []int // of each source, in a row
	same     map[sourceTimeline]error
}

func newRepairer(o RepairOptions, info repo.EpochInfo) *repairer {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &repairer{RepairOptions: o, info: info, pieces: newPieces(), failures: make([]int, len(o.Sources)), same: map[sourceTimeline]error{}}
}

type sourceTimeline struct {
	source int
	t      pg.Timeline
}

// giveUp is how often in a row a source may fail before it is not asked again.
const giveUp = 3

// file repairs one file. An error ends the repair.
func (p *repairer) file(ctx context.Context, name repo.WALName) error {
	var reasons []error
	lost := true
	for i, s := range p.Sources {
		p.mu.Lock()
		skip := p.failures[i] >= giveUp
		p.mu.Unlock()
		if skip {
			lost = false
			reasons = append(reasons, fmt.Errorf("%s: failed %d times in a row, not asked again", s.Name(), giveUp))
			continue
		}
		done, possible, err := p.from(ctx, i, name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var target *targetError
		if errors.As(err, &target) {
			return fmt.Errorf("repair %s in %s: %w", name, p.Target.Repository().Name(), target.err)
		}
		p.mu.Lock()
		if err == nil || errors.Is(err, ErrSourceLacks) || errors.Is(err, errUnfit) {
			p.failures[i] = 0
		} else {
			p.failures[i]++
		}
		if done {
			p.report.Repaired = append(p.report.Repaired, Repaired{Name: name, Source: s.Name(), Possible: possible})
		}
		p.mu.Unlock()
		if done {
			p.Log.Info("repaired", zap.Stringer("file", name), zap.String("source", s.Name()), zap.Bool("dry_run", p.DryRun))
			return nil
		}
		if !errors.Is(err, ErrSourceLacks) {
			lost = false
			p.Log.Warn("a source is no help", zap.Stringer("file", name), zap.String("source", s.Name()), zap.Error(err))
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", s.Name(), err))
	}
	if len(reasons) == 0 {
		reasons = append(reasons, errors.New("no source is left to ask"))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Failed = append(p.report.Failed, Unrepaired{Name: name, Err: errors.Join(reasons...), Lost: lost})
	return nil
}

// targetError is a failure of the repository that is being repaired.
type targetError struct{ err error }

func (e *targetError) Error() string { return e.err.Error() }

// errUnfit: a source gave what must not be stored.
var errUnfit = errors.New("what it has is unfit")

// from tries one source.
func (p *repairer) from(ctx context.Context, i int, name repo.WALName) (done, possible bool, err error) {
	s := p.Sources[i]
	if err := p.sameTimeline(ctx, i, name); err != nil {
		return false, false, err
	}
	if p.DryRun {
		ask, ok := s.(Prober)
		if !ok {
			return true, true, nil
		}
		has, err := ask.Has(ctx, name)
		if err == nil && !has {
			err = ErrSourceLacks
		}
		return err == nil, false, err
	}
	l, err := p.fetch(ctx, s, name)
	if err != nil {
		return false, false, err
	}
	defer l.file.Close()
	err = l.put(ctx, p.Target)
	if err != nil && !errors.Is(err, repo.ErrExists) {
		return false, false, &targetError{err}
	}
	return true, false, nil
}

// fetch brings a file from a source and examines it. Close l.file, which has no
// name any more.
func (p *repairer) fetch(ctx context.Context, s Source, name repo.WALName) (*local, error) {
	f, err := os.CreateTemp(p.TempDir, "walkeep-repair-*")
	if err != nil {
		return nil, &targetError{fmt.Errorf("make a temporary file: %w", err)}
	}
	if err := os.Remove(f.Name()); err != nil { // nothing is left behind, whatever happens
		return nil, &targetError{errors.Join(err, f.Close())}
	}
	w := &roomyWriter{f: f, room: int64(p.info.SegmentSize)}
	err = s.Fetch(ctx, name, w)
	switch {
	case w.err != nil:
		err = &targetError{fmt.Errorf("write to a temporary file: %w", w.err)}
	case w.room < 0:
		err = fmt.Errorf("%w: it is longer than a segment", errUnfit)
	}
	l := &local{path: name.String(), file: f, pieces: p.pieces, major: p.info.PGMajor, size: p.info.SegmentSize}
	if err == nil {
		err = p.examine(l, name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// examine judges what a source gave.
func (p *repairer) examine(l *local, name repo.WALName) error {
	l.head = repo.WALHead{Kind: repo.WALKind(name.Kind), Name: name.Name, SystemID: p.Target.SystemID()}
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return &targetError{err}
	}
	err := l.examine(name.Kind, p.Target.Repository())
	switch {
	case errors.Is(err, ErrRefused):
		return fmt.Errorf("%w: %w", errUnfit, err)
	case err != nil:
		return &targetError{err}
	case l.head.WALName() != name:
		return fmt.Errorf("%w: the segment is not complete, its records end at %s", errUnfit, l.head.ValidTo)
	case l.major != p.info.PGMajor:
		return fmt.Errorf("%w: it is of PostgreSQL %d, not %d", errUnfit, l.major, p.info.PGMajor)
	}
	return nil
}

// sameTimeline is an error if the source's timeline of this number is another
// one than the repository's. If one of them has no history file, nothing speaks
// against it.
func (p *repairer) sameTimeline(ctx context.Context, i int, name repo.WALName) error {
	t := name.Timeline()
	if t <= 1 || name.Kind != pg.FileSegment {
		return nil
	}
	p.mu.Lock()
	err, known := p.same[sourceTimeline{i, t}]
	p.mu.Unlock()
	if known {
		return err
	}
	own, err := p.Target.WALHead(ctx, repo.HistoryFile(t))
	if absent(err) {
		return nil
	}
	if err != nil {
		return &targetError{err}
	}
	var sum wal.Digester
	err = p.Sources[i].Fetch(ctx, repo.HistoryFile(t), &sum)
	switch {
	case errors.Is(err, ErrSourceLacks):
		err = nil
	case err != nil:
		return err // not remembered: it may have been a hiccup
	case sum.Digest().String() != own.XXH3:
		err = fmt.Errorf("%w: its timeline %d is another one, with another history file", errUnfit, t)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.same[sourceTimeline{i, t}] = err
	return err
}
