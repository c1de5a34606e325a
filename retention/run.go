package retention

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
)

// Options of Run.
type Options struct {
	Policy Policy
	Zone   *time.Location // where days begin; nil: UTC
	// Remove are backups to remove instead of what the policy says.
	Remove []repo.Label
	// DryRun makes the plan and removes nothing. It takes no lease.
	DryRun bool
	// Wait is how long to wait for another run in this repository. 0: not at
	// all (repo.ErrBusy).
	Wait time.Duration
	// Watch is what this process saw of stale marks in earlier runs. With it a run
	// does not wait until it is certain that one is stale, which takes minutes: what
	// the mark protects is left for a later run. nil: it waits.
	Watch *repo.UseWatch
	Clock func() time.Time // nil: time.Now
	Log   *zap.Logger      // nil: none
}

// Result is what Run found and did.
type Result struct {
	Repository string `json:"repository"`
	Plan       Plan   `json:"plan"`
	DryRun     bool   `json:"dry_run,omitempty"`
	// Done is what was deleted: all objects of all kinds but summaries.
	Done Deleted `json:"done"`
	// Postponed says what was left for the next run, and why.
	Postponed []string `json:"postponed,omitempty"`
	// Watched counts the stale marks that were left because it is not certain yet
	// that they are: another run helps, when repo.UseTTL is over.
	Watched int `json:"watched,omitempty"`
	// Failures are what the store refused, as the error says.
	Failures []string `json:"failures,omitempty"`
}

// Lines says for people what was done, without the plan.
func (r Result) Lines() []string {
	var lines []string
	for _, p := range r.Postponed {
		lines = append(lines, "left for the next run: "+p)
	}
	if r.DryRun {
		return append(lines, "nothing was removed (--dry-run)")
	}
	d := r.Done
	lines = append(lines, fmt.Sprintf("removed: %d backups, %d packs and manifests, %d WAL files, %d pins; %s",
		d.Backups, d.Packs, d.WAL, d.Pins, humanize.IBytes(uint64(d.Bytes))))
	if d.Uploads > 0 {
		lines = append(lines, fmt.Sprintf("aborted: %d uploads that were never finished", d.Uploads))
	}
	return lines
}

// Deleted counts.
type Deleted struct {
	Backups int   `json:"backups"` // summaries
	Packs   int   `json:"packs"`   // manifests and packs
	WAL     int   `json:"wal"`     // segments, partial ones, backup history files
	Pins    int   `json:"pins"`    // that had ended
	Uploads int   `json:"uploads"` // that killed writers left unfinished
	Bytes   int64 `json:"bytes"`   // as stored
	Left    int   `json:"left"`    // objects that the store refused to delete
}

// Run makes a plan for a repository and carries it out, or only makes it.
//
// What the store refuses to delete (an object lock) is reported in the error
// when all the rest is done; the next run tries it again. A run that is killed
// or fails at any point leaves nothing that is listed and cannot be restored.
//
// Errors: repo.ErrBusy: another run is under way; ErrNoBackup and ErrNeeded
// of Options.Remove; repo.ErrIntegrity if a summary cannot be read; those of
// the store.
func Run(ctx context.Context, r *repo.Repository, o Options) (Result, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	x := &expiry{Options: o, r: r, result: Result{Repository: r.Name(), DryRun: o.DryRun}}
	if err := o.Policy.Validate(); err != nil {
		return x.result, err
	}
	if o.DryRun {
		err := x.plan(ctx)
		return x.result, errors.Join(err, x.damage())
	}
	err := x.run(ctx)
	for _, f := range x.failures {
		x.result.Failures = append(x.result.Failures, f.Error())
	}
	return x.result, errors.Join(append(x.failures, err, x.damage())...)
}

// expiry is one run.
type expiry struct {
	Options
	r      *repo.Repository
	lease  *repo.Lease
	result Result

	state    State
	epochs   []*repo.Epoch
	mu       sync.Mutex // guards failures, and result.Done and Postponed while several delete
	failures []error
}

func (x *expiry) request() Request {
	return Request{Policy: x.Policy, At: x.Clock(), Zone: x.Zone, Remove: x.Remove}
}

func (x *expiry) plan(ctx context.Context) (err error) {
	if x.state, x.epochs, err = gather(ctx, x.r); err != nil {
		return err
	}
	x.result.Plan, err = MakePlan(x.state, x.request())
	return err
}

// damage is an error if the plan had to leave things alone because something
// cannot be read.
func (x *expiry) damage() error {
	for i, e := range x.state.Epochs {
		for _, l := range e.Unreadable {
			if !slices.Contains(x.Remove, l) {
				_, err := x.epochs[i].Summary(context.Background(), l)
				return fmt.Errorf("expire in %s: %w", x.r.Name(), err)
			}
		}
	}
	return nil
}

func (x *expiry) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failures = append(x.failures, err)
}

func (x *expiry) postpone(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.result.Postponed = append(x.result.Postponed, fmt.Sprintf(format, args...))
}

func (x *expiry) run(ctx context.Context) (err error) {
	if x.lease, err = x.acquire(ctx); err != nil {
		return fmt.Errorf("expire in %s: %w", x.r.Name(), err)
	}
	defer func() { err = errors.Join(err, x.lease.Release(context.WithoutCancel(ctx))) }()
	ctx = x.lease.Context()
	if err := x.plan(ctx); err != nil {
		return err
	}
	if err := x.breakStale(ctx); err != nil {
		return err
	}
	failed, err := x.removeSummaries(ctx)
	if err != nil {
		return err
	}
	if err := x.collect(ctx); err != nil {
		return err
	}
	return errors.Join(x.removeWAL(ctx, failed), x.abortUploads(ctx))
}

// uploadsKept is how old an unfinished upload is when it is aborted. A pack takes
// as long as the backup takes to fill it, so hours with a low rate limit; a
// week is what the clouds wait that clean up themselves.
const uploadsKept = 7 * 24 * time.Hour

// abortUploads removes what writers left that were killed in the middle of an
// object. Nobody references it, so it needs no order; the lease only keeps two
// runs from doing it twice.
func (x *expiry) abortUploads(ctx context.Context) error {
	if err := x.allowed(ctx); err != nil {
		return err
	}
	n, err := object.AbortUploads(ctx, x.r.Store(), "", x.result.Plan.At.Add(-uploadsKept))
	x.result.Done.Uploads = n
	switch {
	case errors.Is(err, object.ErrDenied):
		// Listing them is a permission of its own, which many policies do not give.
		x.postpone("unfinished uploads, which a lifecycle rule of the bucket can remove too: %s", err)
	case err != nil && ctx.Err() == nil:
		x.fail(err)
	case err != nil:
		return err
	}
	return nil
}

// acquire takes the lease. A store that is full has no room for it, and room
// is what we are here to make.
func (x *expiry) acquire(ctx context.Context) (*repo.Lease, error) {
	o := repo.LeaseOptions{What: "expiring backups", Wait: x.Wait}
	lease, err := x.r.AcquireLease(ctx, repo.ExpiryLease, o)
	if err == nil || !errors.Is(err, syscall.ENOSPC) {
		return lease, err
	}
	if room := x.makeRoom(ctx); room != nil {
		return nil, errors.Join(err, room)
	}
	return x.r.AcquireLease(ctx, repo.ExpiryLease, o)
}

// makeRoom removes, without the lease, one backup that has to go: the first
// in the order in which they are removed. On a full store nobody else can put
// a mark, a summary or a lease, which is what the lease would protect from.
func (x *expiry) makeRoom(ctx context.Context) error {
	if err := x.plan(ctx); err != nil {
		return err
	}
	for i, e := range x.epochs {
		for _, r := range x.result.Plan.Remains {
			if r.SystemID == e.SystemID() && !r.Keep {
				x.Log.Warn("the repository is full: removing remains without the lease", zap.String("label", string(r.Label)))
				return e.MakeRoom(ctx, r.Label)
			}
		}
		if levels := x.levels(i); len(levels) > 0 {
			label := levels[0][0]
			x.Log.Warn("the repository is full: removing a backup without the lease", zap.String("label", string(label)))
			failed, err := e.DeleteSummaries(ctx, label)
			if err != nil || failed[label] != nil {
				return errors.Join(err, failed[label])
			}
			return e.MakeRoom(ctx, label)
		}
	}
	return errors.New("the repository is full, and nothing in it has to go")
}

// breakStale removes marks whose holders are gone, where they stand in the
// way, and plans again. It can take as long as the TTL of a mark.
func (x *expiry) breakStale(ctx context.Context) error {
	live := x.state
	live.Uses = nil
	var stale []repo.Use
	for _, u := range x.state.Uses {
		if u.Stale {
			stale = append(stale, u)
			continue
		}
		live.Uses = append(live.Uses, u)
		if x.Watch != nil && u.Writing {
			// If it goes stale, it was watched from the beginning.
			if err := x.r.WatchUse(ctx, u, x.Watch); err != nil {
				return err
			}
		}
	}
	if len(stale) == 0 {
		return nil
	}
	req := x.request()
	req.At = x.result.Plan.At
	without, err := MakePlan(live, req)
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, u := range stale {
		if !u.Writing && reflect.DeepEqual(keptLabels(without), keptLabels(x.result.Plan)) && x.listed(u.Label) {
			continue // it makes no difference now
		}
		group.Go(func() error {
			if x.Watch == nil {
				_, err := x.r.BreakStale(ctx, u)
				return err
			}
			broken, err := x.r.BreakWatched(ctx, u, x.Watch)
			if !broken && err == nil {
				x.postpone("what is marked by %s for %s, which seems to be gone", u.Holder, u.What)
				x.mu.Lock()
				x.result.Watched++
				x.mu.Unlock()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return x.plan(ctx)
}

func (x *expiry) listed(l repo.Label) bool {
	return slices.ContainsFunc(x.result.Plan.Backups, func(b BackupDecision) bool { return b.Label == l })
}

func keptLabels(p Plan) (kept []repo.Label) {
	for _, b := range p.Backups {
		if b.Keep {
			kept = append(kept, b.Label)
		}
	}
	return kept
}

// allowed is asked before every batch of deletions.
func (x *expiry) allowed(ctx context.Context) error { return x.lease.Check(ctx) }

// levels are the backups of an epoch that go, in the order in which their
// summaries are removed: what builds on others before these.
func (x *expiry) levels(epoch int) (levels [][]repo.Label) {
	d := &decider{state: x.state}
	d.load()
	left := map[*decided]bool{}
	for _, b := range d.all {
		if b.epoch == epoch && x.goes(epoch, b.sum.Label) {
			left[b] = true
		}
	}
	for len(left) > 0 {
		needed := map[*decided]bool{}
		for b := range left {
			for _, n := range d.needs(b) {
				needed[n] = true
			}
		}
		var level []repo.Label
		for _, b := range d.all {
			if left[b] && !needed[b] {
				level = append(level, b.sum.Label)
			}
		}
		if len(level) == 0 { // summaries that reference each other: impossible, but then at once
			for b := range left {
				level = append(level, b.sum.Label)
			}
		}
		for _, b := range d.all {
			if slices.Contains(level, b.sum.Label) {
				delete(left, b)
			}
		}
		levels = append(levels, level)
	}
	if broken := x.unreadableToRemove(epoch); len(broken) > 0 {
		levels = append(levels, broken)
	}
	return levels
}

func (x *expiry) goes(epoch int, l repo.Label) bool {
	id := x.state.Epochs[epoch].Holdings.SystemID
	return slices.ContainsFunc(x.result.Plan.Backups, func(b BackupDecision) bool {
		return b.Label == l && b.SystemID == id && !b.Keep
	})
}

func (x *expiry) unreadableToRemove(epoch int) (labels []repo.Label) {
	for _, l := range x.state.Epochs[epoch].Unreadable {
		if slices.Contains(x.Remove, l) {
			labels = append(labels, l)
		}
	}
	return labels
}

// removeSummaries makes the backups that go not exist any more. One whose
// summary cannot be removed stays a backup, and so does all that it needs: it
// returns those, per epoch.
func (x *expiry) removeSummaries(ctx context.Context) ([]map[repo.Label]bool, error) {
	stay := make([]map[repo.Label]bool, len(x.epochs))
	for i, e := range x.epochs {
		stay[i] = map[repo.Label]bool{}
		d := &decider{state: x.state}
		d.load()
		for _, level := range x.levels(i) {
			level = slices.DeleteFunc(level, func(l repo.Label) bool { return stay[i][l] })
			if len(level) == 0 {
				continue
			}
			if err := x.allowed(ctx); err != nil {
				return nil, err
			}
			failed, err := e.DeleteSummaries(ctx, level...)
			if err != nil {
				return nil, err
			}
			x.result.Done.Backups += len(level) - len(failed)
			for l, err := range failed {
				x.fail(err)
				x.result.Done.Left++
				stay[i][l] = true
				if b := d.byName[i][l]; b != nil {
					for _, n := range d.needs(b) {
						stay[i][n.sum.Label] = true
					}
				}
			}
		}
	}
	return stay, nil
}
