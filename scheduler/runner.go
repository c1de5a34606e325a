package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/internal/traces"
	"github.com/walkeep/walkeep/repo"
)

// Outcome is what an executor reports of a run.
type Outcome struct {
	Label repo.Label // of the backup that was taken, if one was
	Node  string     // where
	// Report is what the run did and found, for people, a line each. The first
	// maxReport lines are kept.
	Report []string
}

// maxReport bounds what the history keeps of the report of one run.
const maxReport = 100

// Executor does what a run is for. When ctx is cancelled it ends soon.
// ErrHandedOver leaves the run open, for whoever comes next.
type Executor func(ctx context.Context, run repo.JobRun) (Outcome, error)

// Journal keeps the history of one repository: a [*repo.Repository].
type Journal interface {
	BeginRun(context.Context, repo.JobRun) (repo.JobRun, error)
	EndRun(context.Context, repo.JobRun) error
	NewRuns(ctx context.Context, since time.Time, known func(id string) bool) ([]repo.JobRun, error)
	FindRun(ctx context.Context, id string) (repo.JobRun, error)
	RemoveRuns(ctx context.Context, ids ...string) error
}

// Clock is time; tests have one of their own.
type Clock interface {
	Now() time.Time
	// After is like time.After.
	After(time.Duration) <-chan time.Time
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now is time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Errors of a Runner.
var (
	// ErrCancelled is the cause of the context of a run that [Runner.Cancel]
	// ended.
	ErrCancelled = errors.New("the run was cancelled")
	// ErrHandedOver: the run goes on without us, and nobody has to end it.
	ErrHandedOver = errors.New("the run goes on elsewhere")
	// ErrBusy: another run of the repository is under way.
	ErrBusy = errors.New("another run is under way")
	// ErrPaused: no run may start.
	ErrPaused = errors.New("paused")
	// ErrIdle: the runner does not run now.
	ErrIdle = errors.New("nothing is started here now")
)

// Options of a Runner. Repo, Executors and Journal are required.
type Options struct {
	Repo      string
	Jobs      []Job
	Executors map[Kind]Executor
	Journal   Journal
	// Adopt is asked for a run that the history shows as open and that is not
	// ours: what follows it to its end, or nil if it is lost.
	Adopt func(ctx context.Context, run repo.JobRun) Executor
	// Changed is called, without a lock, when a run began or ended.
	Changed func()
	By      string // who runs them, for people
	// KeepHistory is how long all runs are remembered. 0: 32 days. Of older ones
	// the last of each kind is, so that a yearly schedule knows its last run.
	KeepHistory time.Duration
	Tracer      trace.Tracer // of a span for each run; nil: none
	Clock       Clock        // nil: the system's
	Log         *zap.Logger  // nil: none
}

// Runner starts the runs of one repository when they are due. Only one may run
// for a repository at a time: the leader's.
//
// Crashes: the begin of a run is recorded before the run, its end after it. If
// the process dies between, the next one finds a run without an end. It goes on
// with what still runs elsewhere, and records that the rest was lost and tries
// it again like one that failed.
type Runner struct {
	o     Options
	since time.Time
	work  context.Context // of the executors

	running sync.WaitGroup
	wake    chan struct{}
	// starting is held while a run is started, so that there is one at a time.
	starting sync.Mutex

	mu      sync.Mutex // guards what follows
	jobs    []Job
	history []repo.JobRun
	paused  bool
	fence   func(context.Context) error // nil: not running
	cancels map[string]context.CancelCauseFunc
}

const (
	defaultKeepHistory = 32 * 24 * time.Hour
	// longestSleep bounds the time until the next look at the clock: clocks are
	// set, machines are suspended.
	longestSleep = time.Minute
	// recordTime bounds the recording of an end when the service stops.
	recordTime = 30 * time.Second
	// keyTime is how long an idempotency key is remembered.
	keyTime = 24 * time.Hour
	// unrecorded begins the ids of runs that are in no repository.
	unrecorded = "unrecorded-"
)

// NewRunner checks the options. work is the context of what runs: it outlives
// the right to start more.
func NewRunner(work context.Context, o Options) (*Runner, error) {
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Tracer == nil {
		o.Tracer = noop.Tracer{}
	}
	if o.KeepHistory == 0 {
		o.KeepHistory = defaultKeepHistory
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Journal == nil {
		return nil, fmt.Errorf("scheduler: no journal of %s", o.Repo)
	}
	o.Log = o.Log.With(zap.String("repo", o.Repo))
	r := &Runner{o: o, since: o.Clock.Now(), work: work, cancels: map[string]context.CancelCauseFunc{}, wake: make(chan struct{}, 1)}
	return r, r.SetJobs(o.Jobs)
}

// SetJobs replaces the jobs. What runs goes on.
func (r *Runner) SetJobs(jobs []Job) error {
	seen := map[Kind]bool{}
	for _, j := range jobs {
		switch {
		case j.Repo != r.o.Repo:
			return fmt.Errorf("scheduler: a job of %s for %s", j.Repo, r.o.Repo)
		case seen[j.Kind]:
			return fmt.Errorf("scheduler: two jobs %s/%s", j.Repo, j.Kind)
		case !slices.Contains(order, j.Kind):
			return fmt.Errorf("scheduler: unknown kind %q", j.Kind)
		case r.o.Executors[j.Kind] == nil:
			return fmt.Errorf("scheduler: nothing executes %s", j.Kind)
		}
		seen[j.Kind] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs = slices.Clone(jobs)
	r.poke()
	return nil
}

// Jobs are the present ones.
func (r *Runner) Jobs() []Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.jobs)
}

// SetPaused keeps scheduled runs from starting, or ends that. What was missed is
// caught up once. What runs goes on.
func (r *Runner) SetPaused(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != on {
		r.paused = on
		r.poke()
	}
}

// Cancel ends a run; false if there is none of that id here.
func (r *Runner) Cancel(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	cancel, ok := r.cancels[id]
	if ok {
		cancel(ErrCancelled)
	}
	return ok
}

// History is what is known of runs, oldest first.
func (r *Runner) History() []repo.JobRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.history)
}

// Wait waits for what runs, after its context has ended.
func (r *Runner) Wait() { r.running.Wait() }

func (r *Runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run starts what is due until ctx is done, and leaves running what runs. fence
// is asked right before each start: its error keeps the run from starting. An
// error other than the cause of ctx means that the history cannot be read.
func (r *Runner) Run(ctx context.Context, fence func(context.Context) error) error {
	if err := r.load(ctx); err != nil {
		return err
	}
	r.setFence(fence)
	defer r.setFence(nil)
	r.o.Changed()
	for {
		now := r.o.Clock.Now()
		r.mu.Lock()
		d := Decide(r.jobs, State{Now: now, Since: r.since, History: r.history, Paused: map[string]bool{"": r.paused}})
		r.mu.Unlock()
		sleep := longestSleep
		for _, s := range d.Start {
			if err := r.startDue(ctx, s); err != nil {
				r.o.Log.Warn("a run does not start", zap.String("kind", string(s.Job.Kind)), zap.Error(err))
			}
			sleep = time.Second // look again: the next may be due
		}
		if len(d.Start) == 0 && !d.Next.IsZero() {
			sleep = min(sleep, max(d.Next.Sub(now), 0))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.wake:
		case <-r.o.Clock.After(sleep):
		}
	}
}

func (r *Runner) setFence(f func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fence = f
}

func (r *Runner) startDue(ctx context.Context, s Start) error {
	_, err := r.start(ctx, repo.JobRun{Kind: string(s.Job.Kind), Due: s.Due.UTC(), Attempt: s.Attempt})
	if errors.Is(err, ErrBusy) {
		return nil // somebody was faster; it waits
	}
	return err
}

// Request asks for a run now.
type Request struct {
	Kind        Kind
	Key         string // idempotency key; "": none
	By          string
	Annotations map[string]string
}

// Trigger starts a run now, or finds the one that the key began in the last
// day. ErrBusy, ErrPaused (backups only), ErrIdle, and the fence's error.
func (r *Runner) Trigger(ctx context.Context, q Request) (repo.JobRun, error) {
	now := r.o.Clock.Now().UTC()
	return r.start(ctx, repo.JobRun{
		Kind: string(q.Kind), Due: now, Attempt: 1, Manual: true, Key: q.Key, By: q.By, Annotations: q.Annotations,
	})
}

// start begins a run in the background.
func (r *Runner) start(ctx context.Context, run repo.JobRun) (repo.JobRun, error) {
	r.starting.Lock()
	defer r.starting.Unlock()
	fence, known, err := r.mayStart(run)
	if err != nil || known.ID != "" {
		return known, err
	}
	if err := fence(ctx); err != nil {
		return repo.JobRun{}, err
	}
	do := r.o.Executors[Kind(run.Kind)]
	if do == nil {
		return repo.JobRun{}, fmt.Errorf("scheduler: nothing executes %s", run.Kind)
	}
	run.Started = r.o.Clock.Now().UTC()
	if run.By == "" {
		run.By = r.o.By
	}
	// A repository that cannot be written to must not stop the job: an expiry
	// makes room, and anything else fails and is seen to.
	if recorded, err := r.o.Journal.BeginRun(ctx, run); err != nil {
		r.o.Log.Warn("the begin of a run is not recorded", zap.String("kind", run.Kind), zap.Error(err))
		run.ID, run.Repo = fmt.Sprintf("%s%s-%d", unrecorded, run.Kind, run.Started.UnixNano()), r.o.Repo
	} else {
		run = recorded
	}
	r.o.Log.Info("run", zap.String("run", run.ID), zap.String("kind", run.Kind), zap.Int("attempt", run.Attempt), zap.Bool("manual", run.Manual))
	r.mu.Lock()
	r.history = append(r.history, run)
	r.mu.Unlock()
	r.execute(run, do)
	r.o.Changed()
	return run, nil
}

// mayStart looks whether a run can start; known is the run that it would repeat.
func (r *Runner) mayStart(run repo.JobRun) (fence func(context.Context) error, known repo.JobRun, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fence == nil {
		return nil, known, ErrIdle
	}
	busy := ""
	for _, old := range r.history {
		if run.Key != "" && old.Key == run.Key && run.Due.Sub(old.Started) < keyTime {
			return nil, old, nil
		}
		if old.Running() {
			busy = old.Kind + " (" + old.ID + ")"
		}
	}
	switch {
	case busy != "":
		return nil, known, fmt.Errorf("%w in %s: %s", ErrBusy, r.o.Repo, busy)
	case run.Manual && r.paused && Kind(run.Kind).Backup():
		return nil, known, fmt.Errorf("%s: %w", r.o.Repo, ErrPaused)
	}
	return r.fence, known, nil
}

// execute does the work of a run that is in the history.
func (r *Runner) execute(run repo.JobRun, do Executor) {
	ctx, cancel := context.WithCancelCause(r.work)
	r.mu.Lock()
	r.cancels[run.ID] = cancel
	r.mu.Unlock()
	r.running.Go(func() {
		ctx, span := r.o.Tracer.Start(ctx, "run "+run.Kind, trace.WithAttributes(
			attribute.String("walkeep.run", run.ID), attribute.String("walkeep.repository", r.o.Repo), attribute.String("walkeep.type", run.Kind),
			attribute.Int("walkeep.attempt", run.Attempt), attribute.Bool("walkeep.manual", run.Manual)))
		out, err := protect(ctx, run, do)
		cause := context.Cause(ctx)
		cancel(nil)
		failed := err
		if errors.Is(err, ErrHandedOver) {
			failed = nil
		}
		traces.End(span, failed, attribute.String("walkeep.node", out.Node), attribute.String("walkeep.label", string(out.Label)))
		r.end(run, out, err, cause)
	})
}

// protect keeps a panic of one run from ending the service.
func protect(ctx context.Context, run repo.JobRun, do Executor) (out Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v", run.Kind, p)
		}
	}()
	return do(ctx, run)
}

func (r *Runner) end(run repo.JobRun, out Outcome, err, cause error) {
	id := run.ID
	defer r.o.Changed()
	if errors.Is(err, ErrHandedOver) {
		r.o.Log.Info("run goes on without us", zap.String("run", id))
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.cancels, id)
		return
	}
	run.Ended, run.Outcome, run.Label, run.Node = r.o.Clock.Now().UTC(), repo.RunDone, out.Label, out.Node
	run.Report = bounded(out.Report)
	if err != nil {
		run.Outcome, run.Error, run.Damage = repo.RunFailed, err.Error(), errors.Is(err, repo.ErrIntegrity)
		switch {
		case errors.Is(cause, ErrCancelled):
			run.Outcome = repo.RunCancelled
		case cause != nil: // we are being stopped
			run.Outcome = repo.RunLost
		}
	}
	r.o.Log.Info("run ended", zap.String("run", id), zap.String("kind", run.Kind), zap.String("outcome", string(run.Outcome)), zap.Error(err))
	r.record(run)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.cancels, id)
	for i := range r.history {
		if r.history[i].ID == id {
			r.history[i] = run
		}
	}
	r.poke()
}

func bounded(report []string) []string {
	if len(report) <= maxReport {
		return report
	}
	return append(slices.Clone(report[:maxReport]), fmt.Sprintf("and %d lines more", len(report)-maxReport))
}

// record stores the end of a run, if need be while the service stops.
func (r *Runner) record(run repo.JobRun) {
	if strings.HasPrefix(run.ID, unrecorded) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.work), recordTime)
	defer cancel()
	// The first record counts.
	if err := r.o.Journal.EndRun(ctx, run); err != nil && !errors.Is(err, repo.ErrExists) {
		r.o.Log.Warn("the end of a run is not recorded", zap.String("run", run.ID), zap.Error(err))
	}
}
