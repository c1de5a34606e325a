// Package apitest has an api.Service for tests, which holds its state in memory
// and does what a test tells it, and a cluster to show: [Sample].
package apitest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// Service is an api.Service in memory. Make one with New.
type Service struct {
	now func() time.Time

	mu       sync.Mutex // guards what follows
	snapshot *api.Snapshot
	changed  chan struct{}
	keys     map[string]string // idempotency key: run
	made     int
	fail     error
}

var _ api.Service = (*Service)(nil)

// New makes a service that shows s. A nil clock is time.Now.
func New(s *api.Snapshot, now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	return &Service{now: now, snapshot: s, changed: make(chan struct{}), keys: map[string]string{}}
}

// Snapshot is the newest state.
func (s *Service) Snapshot() *api.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Changed is closed at the next change.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Update changes a copy of the snapshot and shows it. The lists of the snapshot
// itself are copies; what is in them is not: replace, for example, the Backups
// of a repository and do not write into them.
func (s *Service) Update(change func(*api.Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.update(change)
}

func (s *Service) update(change func(*api.Snapshot)) {
	n := *s.snapshot
	n.Problems, n.Nodes, n.Repos = slices.Clone(n.Problems), slices.Clone(n.Nodes), slices.Clone(n.Repos)
	n.Runs, n.Next = slices.Clone(n.Runs), slices.Clone(n.Next)
	change(&n)
	n.At = s.now()
	s.snapshot = &n
	close(s.changed)
	s.changed = make(chan struct{})
}

// UpdateRun changes one run. It panics when there is none.
func (s *Service) UpdateRun(id string, change func(*api.Run)) {
	s.Update(func(n *api.Snapshot) {
		for i := range n.Runs {
			if n.Runs[i].ID == id {
				change(&n.Runs[i])
				return
			}
		}
		panic("no run " + id)
	})
}

// Fail makes every request that would change something fail; nil ends that.
func (s *Service) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Backup starts a run, which is under way until UpdateRun or Cancel ends it.
func (s *Service) Backup(_ context.Context, r api.BackupRequest) (api.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains([]string{"full", "differential", "incremental"}, r.Type) {
		return api.Run{}, fmt.Errorf("%w: type %q", api.ErrInvalid, r.Type)
	}
	if id, ok := s.keys[r.Key]; ok && r.Key != "" {
		return s.find(id)
	}
	run, err := s.start(r.Repo, r.Type, r.By, func(run *api.Run) { run.Annotations, run.TotalBytes = r.Annotations, 1<<30 })
	if err == nil && r.Key != "" {
		s.keys[r.Key] = run.ID
	}
	return run, err
}

// start begins a run. Caller holds mu.
func (s *Service) start(name, kind, by string, also func(*api.Run)) (api.Run, error) {
	if s.fail != nil {
		return api.Run{}, s.fail
	}
	i := slices.IndexFunc(s.snapshot.Repos, func(r api.Repository) bool { return r.Name == name })
	if i < 0 {
		return api.Run{}, fmt.Errorf("repository %q: %w", name, api.ErrNotFound)
	}
	if s.snapshot.Repos[i].Paused {
		return api.Run{}, fmt.Errorf("%s: %w", name, api.ErrPaused)
	}
	for _, r := range s.snapshot.Runs {
		if r.Repo == name && !r.Final() {
			return api.Run{}, fmt.Errorf("%s: %w", name, api.ErrBusy)
		}
	}
	s.made++
	now := s.now()
	run := api.Run{
		ID: fmt.Sprintf("made-%d", s.made), Repo: name, Kind: kind, State: api.Running, Manual: true, Attempt: 1, By: by,
		Node: "pg-1", Stage: "copying files", Left: -1, Due: now, Started: now,
	}
	if also != nil {
		also(&run)
	}
	s.update(func(n *api.Snapshot) { n.Runs = slices.Insert(n.Runs, 0, run) })
	return run, nil
}

// Expire plans to remove the oldest backup.
func (s *Service) Expire(_ context.Context, r api.ExpireRequest) (api.Expiry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := api.Expiry{Backups: []api.ExpiryEntry{}, WAL: []string{"WAL before the oldest backup is removed"}}
	for _, repo := range s.snapshot.Repos {
		if repo.Name != r.Repo {
			continue
		}
		for i, b := range repo.Backups {
			entry := api.ExpiryEntry{Label: b.Label, Reason: "one of the newest"}
			if i == len(repo.Backups)-1 {
				entry.Remove, entry.Reason = true, "older than what is kept"
			}
			e.Backups = append(e.Backups, entry)
		}
		if r.DryRun {
			return e, s.fail
		}
	}
	run, err := s.start(r.Repo, "expire", r.By, nil)
	e.Run = &run
	return e, err
}

// Contents makes up what a backup of the snapshot holds.
func (s *Service) Contents(_ context.Context, name string, label repo.Label) (api.BackupContents, error) {
	for _, r := range s.Snapshot().Repos {
		for _, b := range r.Backups {
			if r.Name == name && b.Label == label {
				return contentsOf(name, b), nil
			}
		}
	}
	return api.BackupContents{}, fmt.Errorf("backup %q of %s: %w", label, name, api.ErrNotFound)
}

// Verify starts a run.
func (s *Service) Verify(_ context.Context, repo string) (api.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start(repo, "verify", "", nil)
}

// Repair starts a run.
func (s *Service) Repair(_ context.Context, repo string) (api.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start(repo, "repair", "", nil)
}

// Drill starts a run.
func (s *Service) Drill(_ context.Context, repo string) (api.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start(repo, "drill", "", nil)
}

// Run finds a run.
func (s *Service) Run(_ context.Context, id string) (api.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id)
}

// find finds a run. Caller holds mu.
func (s *Service) find(id string) (api.Run, error) {
	for _, r := range s.snapshot.Runs {
		if r.ID == id {
			return r, nil
		}
	}
	return api.Run{}, fmt.Errorf("run %q: %w", id, api.ErrNotFound)
}

// Cancel ends a run at once.
func (s *Service) Cancel(_ context.Context, id string) (api.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(id)
	switch {
	case s.fail != nil:
		return r, s.fail
	case err != nil:
		return r, err
	case r.Final():
		return r, fmt.Errorf("run %s: %w", id, api.ErrNotRunning)
	}
	s.update(func(n *api.Snapshot) {
		for i := range n.Runs {
			if n.Runs[i].ID == id {
				n.Runs[i].State, n.Runs[i].Ended, n.Runs[i].Error = api.Cancelled, s.now(), "cancelled on request"
				r = n.Runs[i]
			}
		}
	})
	return r, nil
}

// Pause pauses.
func (s *Service) Pause(_ context.Context, repo string, paused bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	found := false
	s.update(func(n *api.Snapshot) {
		for i := range n.Repos {
			if repo == "" || n.Repos[i].Name == repo {
				n.Repos[i].Paused, found = paused, true
			}
		}
	})
	if !found {
		return fmt.Errorf("repository %q: %w", repo, api.ErrNotFound)
	}
	return nil
}

// CanRestore looks into the windows of the snapshot.
func (s *Service) CanRestore(_ context.Context, q api.RestoreQuestion) (api.RestoreAnswer, error) {
	if q.At.IsZero() {
		return api.RestoreAnswer{}, errors.Join(api.ErrInvalid, errors.New("no moment"))
	}
	a := api.RestoreAnswer{At: q.At, Ways: []api.RestoreWay{}, Reason: "no recovery window holds this moment"}
	for _, r := range s.Snapshot().Repos {
		if q.Repo != "" && q.Repo != r.Name {
			continue
		}
		for _, w := range r.Windows {
			switch {
			case q.At.Before(w.Earliest):
				if a.After.IsZero() || w.Earliest.Before(a.After) {
					a.After = w.Earliest
				}
			case q.At.After(w.Latest):
				if w.Latest.After(a.Before) {
					a.Before = w.Latest
				}
			default:
				a.Possible, a.Reason = true, ""
				a.Ways = append(a.Ways, api.RestoreWay{
					Repo: r.Name, Backup: w.Backups[0], Timeline: w.Timeline, WALBytes: 1 << 30,
					Command: fmt.Sprintf("walkeep restore --repo %s --type time --target %q", r.Name, q.At.Format(time.RFC3339)),
				})
			}
		}
	}
	if a.Possible {
		a.Before, a.After = time.Time{}, time.Time{}
	}
	return a, nil
}
