package service

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

// shownRuns is how many runs that ended a snapshot has.
const shownRuns = 200

// build makes a snapshot of what is known; it asks nobody.
func (s *Service) build() *api.Snapshot {
	now := s.o.Clock().UTC()
	set := s.settings()
	state, agents := s.nodes()
	snap := &api.Snapshot{
		Cluster: s.o.Cluster, Version: s.o.Version, At: now, TimeZone: set.Zone.String(), Level: api.OK,
		Problems: []api.Problem{}, Nodes: []api.Node{}, Repos: []api.Repository{}, Runs: []api.Run{}, Next: []api.NextRun{},
	}
	if n := state.Furthest(); n != nil {
		snap.SystemID = &n.SystemID
	}
	for _, n := range state.Nodes {
		a, known := agents[n.Name]
		snap.Nodes = append(snap.Nodes, s.showNode(n, a, known))
	}
	f := &finder{s: s, now: now, state: state, set: set, snap: snap, seen: map[string]bool{}}
	for _, r := range s.repositories() {
		r.mu.Lock()
		v, conf, trouble := r.view, r.config, r.trouble
		r.mu.Unlock()
		runs := r.runs()
		shown := s.showRepository(r, v, conf, runs)
		if r.leads() != nil {
			snap.Leading = true
			v.leader = s.o.Holder
		}
		if snap.Leader == "" {
			snap.Leader = v.leader
		}
		if snap.SystemID == nil && v.systemID != 0 {
			snap.SystemID = &v.systemID
		}
		f.repository(&shown, v, conf, runs, trouble)
		snap.Repos = append(snap.Repos, shown)
		for _, run := range runs {
			snap.Runs = append(snap.Runs, s.showRun(run, now))
		}
		snap.Next = append(snap.Next, next(conf.Jobs, shown.Paused, now)...)
	}
	sortRuns(snap)
	slices.SortStableFunc(snap.Next, func(a, b api.NextRun) int { return a.At.Compare(b.At) })
	f.cluster(agents)
	f.finish()
	return snap
}

// showRepository completes what the last look showed.
func (s *Service) showRepository(r *repository, v view, conf Repo, runs []repo.JobRun) api.Repository {
	out := v.shown
	if out.Name == "" { // there was no look yet
		out = api.Repository{
			Name: r.name, Backups: []api.Backup{}, Timelines: []api.Timeline{}, Gaps: []api.Gap{}, Conflicts: []string{}, Windows: []repo.Window{},
		}
	}
	out.Location, out.LookedAt, out.Paused = conf.Location, v.at, v.paused != nil
	out.Schedules, out.Retention, out.Level = conf.Schedules, conf.Policy.String(), api.OK
	if out.Schedules == nil {
		out.Schedules = map[string]string{}
	}
	if v.err != nil {
		out.Error, out.Damaged = v.err.Error(), errors.Is(v.err, repo.ErrIntegrity)
	}
	if v.gapLooks > 0 && v.gapLooks < gapSure {
		out.Gaps = []api.Gap{} // not sure yet
	}
	out.Verified, out.Expired = lastDone(runs, scheduler.Verify), lastDone(runs, scheduler.Expire)
	out.Drill, out.DrillPassed = showDrill(v.drilled.last), showDrill(v.drilled.passed)
	if out.Behind > 0 {
		out.BehindSince = s.sinceWhen("behind "+r.name, v.at)
	}
	return out
}

// lastDone is when a run of a kind last ended well.
func lastDone(runs []repo.JobRun, kind scheduler.Kind) (at time.Time) {
	for _, run := range runs {
		if run.Kind == string(kind) && run.Outcome == repo.RunDone && run.Ended.After(at) {
			at = run.Ended
		}
	}
	return at
}

// showRun is a run as the API shows it.
func (s *Service) showRun(run repo.JobRun, now time.Time) api.Run {
	out := api.Run{
		ID: run.ID, Repo: run.Repo, Kind: run.Kind, State: api.Running, Manual: run.Manual, Attempt: run.Attempt, By: run.By, Node: run.Node,
		Left: -1, Due: run.Due, Started: run.Started, Ended: run.Ended, Label: run.Label, Error: run.Error, Damage: run.Damage, Report: run.Report, Annotations: run.Annotations,
	}
	if s.unseen(run, now) {
		out.Stage, out.Left = "looking at the repository", 0
		out.Ended = time.Time{}
		return out
	}
	if !run.Running() {
		out.State, out.Left = api.RunState(run.Outcome), 0
		return out
	}
	s.mu.Lock()
	p := s.live[run.ID]
	s.mu.Unlock()
	if p == nil {
		return out
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out.Node, out.Stage, out.TotalBytes, out.CopiedBytes = p.node, p.stage, p.total, p.copied
	out.Rate, out.Left = p.rate(now)
	return out
}

// seeing bounds how long a backup that is done waits to be seen.
const seeing = 15 * time.Second

// unseen reports whether a run has made a backup that no look has found yet.
// Until then it is shown as running, so that whoever followed it finds the
// backup in the list.
func (s *Service) unseen(run repo.JobRun, now time.Time) bool {
	if run.Running() || run.Label == "" || run.Outcome != repo.RunDone || now.Sub(run.Ended) > seeing {
		return false
	}
	r := s.repository(run.Repo)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.err == nil && !slices.ContainsFunc(r.view.shown.Backups, func(b api.Backup) bool { return b.Label == run.Label })
}

// sortRuns puts the newest first, and keeps those under way and the last ones.
func sortRuns(snap *api.Snapshot) {
	slices.SortStableFunc(snap.Runs, func(a, b api.Run) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(b.ID, a.ID))
	})
	ended := 0
	snap.Runs = slices.DeleteFunc(snap.Runs, func(r api.Run) bool {
		if r.Final() {
			ended++
		}
		return r.Final() && ended > shownRuns
	})
}

// next are the runs to come: the next one of each job.
func next(jobs []scheduler.Job, paused bool, now time.Time) (all []api.NextRun) {
	for _, j := range jobs {
		if j.Schedule == nil || paused {
			continue
		}
		if at := j.Schedule.Next(now); !at.IsZero() {
			all = append(all, api.NextRun{Repo: j.Repo, Kind: string(j.Kind), At: at.UTC()})
		}
	}
	return all
}

// sinceWhen remembers when something began, until forget is not told of it.
func (s *Service) sinceWhen(key string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.since[key]
	if !ok {
		at = now
		s.since[key] = at
	}
	return at
}

// waitingSince is since when a file is the oldest that an agent has to push;
// zero if there is none.
func (s *Service) waitingSince(node, repo, file string) time.Time {
	prefix := "waiting " + node + " " + repo + " "
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.since {
		if len(key) > len(prefix) && key[:len(prefix)] == prefix && key != prefix+file {
			delete(s.since, key)
		}
	}
	if file == "" {
		return time.Time{}
	}
	at, ok := s.since[prefix+file]
	if !ok {
		at = s.o.Clock().UTC()
		s.since[prefix+file] = at
	}
	return at
}
