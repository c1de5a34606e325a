package scheduler

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/walkeep/walkeep/repo"
)

// Kind is what a job does.
type Kind string

// The kinds, in the order in which they start when several are due; an expiry that
// follows a backup comes first, and then what backups kept from its turn (patience).
const (
	Full         Kind = "full"
	Differential Kind = "differential"
	Incremental  Kind = "incremental"
	Repair       Kind = "repair" // of coverage
	Expire       Kind = "expire"
	Verify       Kind = "verify"
	Drill        Kind = "drill" // a rehearsed restore
)

var order = []Kind{Full, Differential, Incremental, Repair, Expire, Verify, Drill}

// Backup reports whether the job takes a backup.
func (k Kind) Backup() bool { return k == Full || k == Differential || k == Incremental }

// swallows reports whether a run of k makes one of the other kind needless.
func (k Kind) swallows(other Kind) bool {
	return k == Full && (other == Differential || other == Incremental) || k == Differential && other == Incremental
}

// Covers reports whether a run of k does what one of the other kind would.
func (k Kind) Covers(other Kind) bool { return k == other || k.swallows(other) }

// Job is one thing that is done again and again in one repository.
type Job struct {
	Repo string
	Kind Kind
	// Schedule may be nil for an expiry that only follows backups.
	Schedule *Schedule
	// AfterBackup makes an expiry due after each backup of its repository.
	AfterBackup bool
	// Jitter delays each start by up to this much: the same for the same due
	// time, whoever computes it.
	Jitter time.Duration
	// Attempts is how often a run is tried, 1 and up; 0 is 3. The first pause is
	// Backoff (0: a minute), and doubles, up to an hour.
	Attempts int
	Backoff  time.Duration
}

// patience is how many backups may start in a repository while another of its jobs
// could start too. Then it comes first: where backups take as long as the time
// between them, nothing would ever be verified or rehearsed else.
const patience = 3

// maxBackoff is the longest pause between two attempts.
const maxBackoff = time.Hour

// State is what decisions rest on, besides the jobs.
type State struct {
	Now time.Time
	// Since is when the service began to look after these jobs: from when on
	// one without history is due.
	Since time.Time
	// History is past and running runs, in any order; see [repo.JobRun].
	History []repo.JobRun
	// Paused are repositories in which nothing may start; "" is all.
	Paused map[string]bool
}

// Start is a run that is to start now.
type Start struct {
	Job     Job
	Due     time.Time
	Attempt int // from 1
}

// Decision is what Decide says.
type Decision struct {
	Start []Start // at most one for each repository
	// Next is when something may change by itself; zero: never.
	Next time.Time
}

// Decide says what starts now. It is a pure function.
func Decide(jobs []Job, s State) Decision {
	var d Decision
	repos := map[string][]Job{}
	var names []string
	for _, j := range jobs {
		if _, ok := repos[j.Repo]; !ok {
			names = append(names, j.Repo)
		}
		repos[j.Repo] = append(repos[j.Repo], j)
	}
	for _, name := range names {
		start, next := decideRepo(repos[name], s)
		if start != nil {
			d.Start = append(d.Start, *start)
		}
		if !next.IsZero() && (d.Next.IsZero() || next.Before(d.Next)) {
			d.Next = next
		}
	}
	return d
}

// clockSlack is how far clocks are set back without a reason to doubt them.
const clockSlack = time.Hour

// fromFuture reports whether a run began while the clock was wrong by more than
// a little: it says nothing of what was done until now. Were it believed,
// nothing would be due until the clock is where it was then.
func fromFuture(r repo.JobRun, now time.Time) bool { return r.Started.After(now.Add(clockSlack)) }

// pending is a job that is due, or will be.
type pending struct {
	job     Job
	due     time.Time // zero: not due
	ready   time.Time // when it may start: after jitter or backoff
	attempt int
	// follows: an expiry that a backup made due. It comes before all others, else
	// backups that are always due would keep it from ever making room.
	follows bool
	passed  int // how many backups have started since it was ready
}

// compare orders what is due by who starts first.
func (p pending) compare(q pending) int {
	class := func(p pending) int {
		switch {
		case p.follows:
			return 0
		case p.passed >= patience:
			return 1
		}
		return 2
	}
	kind := func(p pending) int { return slices.Index(order, p.job.Kind) }
	return cmp.Or(cmp.Compare(class(p), class(q)), cmp.Compare(kind(p), kind(q)))
}

func decideRepo(jobs []Job, s State) (start *Start, next time.Time) {
	name := jobs[0].Repo
	var runs []repo.JobRun
	busy := false
	for _, r := range s.History {
		if r.Repo != name {
			continue
		}
		busy = busy || r.Running()
		if !fromFuture(r, s.Now) {
			runs = append(runs, r)
		}
	}
	slices.SortStableFunc(runs, func(a, b repo.JobRun) int { return a.Started.Compare(b.Started) })
	soon := func(t time.Time) {
		if !t.IsZero() && t.After(s.Now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	var due []pending
	for _, j := range jobs {
		p := pendingOf(j, runs, s)
		if j.Schedule != nil {
			soon(j.Schedule.Next(s.Now))
		}
		if !p.due.IsZero() {
			for _, r := range runs {
				if Kind(r.Kind).Backup() && !r.Started.Before(p.ready) {
					p.passed++
				}
			}
			due = append(due, p)
			soon(p.ready)
		}
	}
	if busy || s.Paused[name] || s.Paused[""] {
		return nil, next
	}
	slices.SortStableFunc(due, pending.compare)
	for i, p := range due {
		// What a larger one that waits will swallow, waits for it.
		held := slices.ContainsFunc(due[:i], func(larger pending) bool {
			return larger.job.Kind.swallows(p.job.Kind) && !p.due.After(larger.due)
		})
		if !held && !p.ready.After(s.Now) {
			return &Start{Job: p.job, Due: p.due, Attempt: p.attempt}, next
		}
	}
	return nil, next
}

// pendingOf finds the time for which a job should run now.
func pendingOf(j Job, runs []repo.JobRun, s State) pending {
	covered, last := coveredUntil(j, runs, s)
	due, follows := time.Time{}, false
	if j.Schedule != nil {
		due = lastBefore(j.Schedule, covered, s.Now)
	}
	if j.AfterBackup {
		for _, r := range runs {
			if Kind(r.Kind).Backup() && !r.Running() && r.Ended.After(covered) && r.Ended.After(due) && !r.Ended.After(s.Now) {
				due, follows = r.Ended, true
			}
		}
	}
	if due.IsZero() {
		return retryOf(j, last, s)
	}
	return pending{job: j, due: due, ready: due.Add(jitter(j, due)), attempt: 1, follows: follows}
}

// coveredUntil is up to which due time a job is done with, and its last own run.
func coveredUntil(j Job, runs []repo.JobRun, s State) (until time.Time, last *repo.JobRun) {
	until = s.Since
	first := true
	reach := func(t time.Time) {
		// History replaces Since: what was missed while the service was down
		// is due.
		if first || t.After(until) {
			until, first = t, false
		}
	}
	for i, r := range runs {
		switch {
		case Kind(r.Kind) == j.Kind:
			reach(r.Due)
			last = &runs[i]
		case Kind(r.Kind).swallows(j.Kind) && (r.Outcome == repo.RunDone || r.Running()):
			reach(r.Started)
		}
	}
	return until, last
}

// retryOf is the next attempt of a failed run for which no later time is due.
// Who asked for a run himself sees that it failed.
func retryOf(j Job, last *repo.JobRun, s State) pending {
	if last == nil || last.Running() || last.Manual || last.Outcome == repo.RunDone || last.Outcome == repo.RunCancelled {
		return pending{}
	}
	attempts := cmp.Or(j.Attempts, 3)
	if last.Attempt >= attempts {
		return pending{}
	}
	pause := cmp.Or(j.Backoff, time.Minute)
	for range last.Attempt - 1 {
		pause = min(2*pause, maxBackoff)
	}
	return pending{job: j, due: last.Due, ready: last.Ended.Add(pause), attempt: last.Attempt + 1}
}

// lastBefore is the last time of the schedule in (after, now], zero if there is
// none. It does not walk through all of a long absence.
func lastBefore(sched *Schedule, after, now time.Time) time.Time {
	for _, back := range []time.Duration{time.Hour, 25 * time.Hour, 8 * 24 * time.Hour, 32 * 24 * time.Hour, 367 * 24 * time.Hour} {
		from := now.Add(-back)
		if from.Before(after) {
			from = after
		}
		last := time.Time{}
		for t := sched.Next(from); !t.IsZero() && !t.After(now); t = sched.Next(t) {
			last = t
		}
		if !last.IsZero() || from.Equal(after) {
			return last
		}
	}
	t := sched.Next(after) // less often than once a year
	if t.IsZero() || t.After(now) {
		return time.Time{}
	}
	return t
}

// jitter is between 0 and the job's, and always the same for one due time.
func jitter(j Job, due time.Time) time.Duration {
	if j.Jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(j.Repo + "/" + string(j.Kind) + "/" + due.UTC().Format(time.RFC3339)))
	return time.Duration(h.Sum64() % uint64(j.Jitter))
}
