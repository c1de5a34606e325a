package service

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

const (
	// behindLimit is how many segments a repository may be behind.
	behindLimit = 64
	// behindTime is how long one may be missing: longer than archiving it takes.
	behindTime = 10 * time.Minute
	// oldAfter is how long after its time a backup may come.
	oldAfter = time.Hour
)

// finder finds problems, and gives the levels to what they are about.
type finder struct {
	s     *Service
	now   time.Time
	state cluster.State
	set   Settings
	snap  *api.Snapshot
	seen  map[string]bool // keys of since
}

func (f *finder) add(level api.Level, code, repo, node, format string, args ...any) {
	key := "problem " + code + " " + repo + " " + node
	f.seen[key] = true
	f.snap.Problems = append(f.snap.Problems, api.Problem{
		Level: level, Code: code, Repo: repo, Node: node, Text: fmt.Sprintf(format, args...), Since: f.s.sinceWhen(key, f.now),
	})
}

// repository finds what is not well with one.
func (f *finder) repository(r *api.Repository, v view, conf Repo, runs []repo.JobRun, trouble error) {
	from := len(f.snap.Problems)
	switch {
	case v.err != nil:
		f.add(api.Critical, "repository-down", r.Name, "", "%s cannot be looked at: %s", r.Name, firstLine(v.err))
	case trouble != nil && f.s.repoLeads(r.Name) == nil && v.leader == "":
		f.add(api.Critical, "repository-down", r.Name, "", "nothing can be started in %s: %s", r.Name, firstLine(trouble))
	}
	if v.gapLooks >= gapSure {
		n := 0
		for _, g := range r.Gaps {
			n += g.Segments
		}
		text := fmt.Sprintf("%d segments of WAL are missing in %s, in %d gaps", n, r.Name, len(r.Gaps))
		if len(r.Gaps) == 0 {
			text = fmt.Sprintf("history files of timelines are missing in %s: %s", r.Name, v.gap)
		}
		f.add(api.Critical, "wal-gap", r.Name, "", "%s", text)
	}
	switch {
	case v.coverage.HistoryConflict():
		f.add(api.Critical, "history-conflict", r.Name, "", "two servers chose the same timeline: %s has two history files of it", r.Name)
	case len(r.Conflicts) > 0:
		f.add(api.Warning, "wal-conflict", r.Name, "", "%s holds %d files whose name was taken by other content, such as %s", r.Name, len(r.Conflicts), r.Conflicts[0])
	}
	for _, b := range v.coverage.Branches {
		if b.Live {
			f.add(api.Critical, "history-conflict", r.Name, "", "two primaries: %s", b)
			break
		}
	}
	if r.Behind > behindLimit || r.Behind > 0 && f.now.Sub(r.BehindSince) > behindTime {
		f.add(api.Warning, "wal-behind", r.Name, "", "%s lacks the last %d segments that the cluster has written", r.Name, r.Behind)
	}
	if r.Behind > 0 {
		f.seen["behind "+r.Name] = true
	}
	f.jobs(r.Name, conf, runs)
	f.drills(r.Name, v, conf, runs)
	for _, p := range f.snap.Problems[from:] {
		r.Level = worse(r.Level, p.Level)
	}
}

// jobs finds runs that failed, or did not come.
func (f *finder) jobs(name string, conf Repo, runs []repo.JobRun) {
	slices.SortStableFunc(runs, func(a, b repo.JobRun) int { return a.Started.Compare(b.Started) })
	last := map[scheduler.Kind]repo.JobRun{}
	for _, run := range runs {
		if !run.Running() && run.Outcome != repo.RunCancelled {
			last[scheduler.Kind(run.Kind)] = run
		}
	}
	failed := func(k scheduler.Kind) (repo.JobRun, bool) {
		run, ok := last[k]
		return run, ok && run.Outcome != repo.RunDone
	}
	for _, k := range []scheduler.Kind{scheduler.Full, scheduler.Differential, scheduler.Incremental} {
		if run, bad := failed(k); bad && !doneSince(runs, k, run.Ended) {
			f.add(api.Warning, "backup-failed", name, "", "the last %s backup into %s failed: %s", k, name, firstText(run.Error))
			break
		}
	}
	if run, bad := failed(scheduler.Expire); bad {
		f.add(api.Warning, "expire-failed", name, "", "the last expiry in %s failed: %s", name, firstText(run.Error))
	}
	if run, bad := failed(scheduler.Verify); bad {
		f.add(api.Critical, "verify-failed", name, "", "the last verification of %s failed: %s", name, firstText(run.Error))
	}
	for _, j := range conf.Jobs {
		f.late(name, j, runs)
	}
}

// doneSince reports whether a backup that makes one of the kind needless was
// taken after a moment.
func doneSince(runs []repo.JobRun, k scheduler.Kind, at time.Time) bool {
	return slices.ContainsFunc(runs, func(r repo.JobRun) bool {
		return scheduler.Kind(r.Kind).Covers(k) && r.Outcome == repo.RunDone && r.Started.After(at)
	})
}

// late finds a job whose time has come twice, or long ago, without success.
func (f *finder) late(name string, j scheduler.Job, runs []repo.JobRun) {
	if j.Schedule == nil || !j.Kind.Backup() && j.Kind != scheduler.Verify {
		return
	}
	var from time.Time // of the last success, or of the first run known
	for _, run := range runs {
		if scheduler.Kind(run.Kind).Covers(j.Kind) && run.Outcome == repo.RunDone && run.Started.After(from) {
			from = run.Started
		}
	}
	f.overdue(name, j, from, running(runs, j.Kind))
}

// overdue tells that a job whose last success began at a moment (zero: there is
// none) is late.
func (f *finder) overdue(name string, j scheduler.Job, from time.Time, running bool) {
	if j.Schedule == nil {
		return
	}
	if from.IsZero() {
		f.seen["first "+name] = true
		from = f.s.sinceWhen("first "+name, f.now)
	}
	due := j.Schedule.Next(from)
	if due.IsZero() || f.now.Sub(due) < oldAfter || running {
		return
	}
	level, code := api.Warning, "backup-old"
	if !j.Kind.Backup() {
		code = string(j.Kind) + "-old"
	} else if again := j.Schedule.Next(due); !again.IsZero() && f.now.Sub(again) > oldAfter {
		level = api.Critical
	}
	f.add(level, code, name, "", "no %s since %s, one was due at %s", what(j.Kind), from.In(f.set.Zone).Format(time.RFC3339), due.In(f.set.Zone).Format(time.RFC3339))
}

func what(k scheduler.Kind) string {
	switch {
	case k.Backup():
		return string(k) + " backup"
	case k == scheduler.Drill:
		return "rehearsal of a restore"
	}
	return "verification"
}

func running(runs []repo.JobRun, k scheduler.Kind) bool {
	return slices.ContainsFunc(runs, func(r repo.JobRun) bool { return r.Running() && scheduler.Kind(r.Kind).Covers(k) })
}

// cluster finds what is not well with nodes, agents, leader, configuration.
func (f *finder) cluster(agents map[string]agentState) {
	if f.state.Err != nil {
		f.add(api.Critical, "no-primary", "", "", "the nodes cannot be found out: %s", firstLine(f.state.Err))
	}
	for _, n := range f.state.Nodes {
		if !n.Up() {
			f.add(api.Warning, "node-down", "", n.Name, "%s does not answer: %s", n.Name, firstLine(n.Err))
		}
		a, known := agents[n.Name]
		if known && a.err != nil && n.Up() {
			f.add(api.Warning, "node-down", "", n.Name, "the agent of %s does not answer: %s", n.Name, firstLine(a.err))
		}
		if a.status != nil {
			for _, q := range a.status.Repos {
				if q.Dropped > 0 && len(q.Gaps) > 0 {
					f.add(api.Critical, "queue-dropped", q.Name, n.Name, "%s does not wait for %s any more: %d files were dropped from its queue", n.Name, q.Name, q.Dropped)
				}
			}
		}
	}
	if len(f.state.Nodes) > 0 && f.state.Primary() == nil {
		f.add(api.Critical, "no-primary", "", "", "no primary answers")
	}
	if !f.snap.Leading && f.snap.Leader == "" && isClosed(f.s.probed) {
		f.add(api.Critical, "no-leader", "", "", "no service leads this cluster: nothing is scheduled")
	}
	f.s.mu.Lock()
	refused := f.s.refused
	f.s.mu.Unlock()
	if refused != nil {
		f.add(api.Warning, "config-invalid", "", "", "the configuration was changed and is not valid, so the old one is in effect: %s", firstLine(refused))
	}
}

// finish sorts the problems, and forgets when those began that are over.
func (f *finder) finish() {
	rank := map[api.Level]int{api.Critical: 0, api.Warning: 1, api.OK: 2}
	slices.SortStableFunc(f.snap.Problems, func(a, b api.Problem) int { return cmp.Compare(rank[a.Level], rank[b.Level]) })
	for _, p := range f.snap.Problems {
		f.snap.Level = worse(f.snap.Level, p.Level)
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for key := range f.s.since {
		if !f.seen[key] && !strings.HasPrefix(key, "waiting ") {
			delete(f.s.since, key)
		}
	}
}

func worse(a, b api.Level) api.Level {
	if a == api.Critical || b == api.OK || b == "" {
		return a
	}
	return b
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *Service) repoLeads(name string) *repo.Lease {
	if r := s.repository(name); r != nil {
		return r.leads()
	}
	return nil
}

// maxText bounds the text of an error in a problem, bytes.
const maxText = 500

func firstLine(err error) string { return firstText(err.Error()) }

func firstText(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
