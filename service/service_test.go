package service

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/scheduler"
)

// eye is how one service sees a repository: the store may be away from it.
type eye struct {
	store *faulty.Store
	repo  Repo
}

var errAway = errors.New("the store is away")

func (e *eye) away(on bool) {
	if on {
		e.store.SetRules(faulty.Rule{Fault: faulty.Fail, Err: errAway})
		return
	}
	e.store.SetRules()
}

func see(t *testing.T, name string, store object.Store) *eye {
	e := &eye{store: faulty.New(store)}
	r, err := repo.Open(repo.Options{Name: name, Store: e.store, Cluster: "hippo"})
	require.NoError(t, err)
	jobs := []scheduler.Job{{Repo: name, Kind: scheduler.Expire, AfterBackup: true}}
	e.repo = Repo{Work: r, Watch: r, Location: "memory", Jobs: jobs, Place: name}
	return e
}

// begin starts a service over stores, which ends with the test.
func begin(t *testing.T, holder string, stores ...object.Store) (*Service, []*eye) {
	t.Helper()
	return beginWith(t, holder, func(*Options) {}, stores...)
}

func beginWith(t *testing.T, holder string, change func(*Options), stores ...object.Store) (*Service, []*eye) {
	t.Helper()
	var eyes []*eye
	set := Settings{Interval: 200 * time.Millisecond, Probe: 100 * time.Millisecond, Lease: 2 * time.Second}
	for i, store := range stores {
		eyes = append(eyes, see(t, []string{"repo1", "repo2"}[i], store))
		set.Repos = append(set.Repos, eyes[i].repo)
	}
	o := Options{Settings: set, Cluster: "hippo", Holder: holder, Cache: repo.NewRunCache(t.TempDir(), nil, nil)}
	change(&o)
	s, err := New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	return s, eyes
}

func until(t *testing.T, s *Service, what string, ok func(*api.Snapshot) bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		changed := s.Changed()
		if ok(s.Snapshot()) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			require.Fail(t, "not in time: "+what, "%+v", s.Snapshot())
		}
	}
}

// leadsOf says which repositories a service may start runs in.
func leadsOf(s *Service) (names string) {
	for _, r := range s.repositories() {
		if r.leads() != nil {
			names += r.name + " "
		}
	}
	return names
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 2*time.Minute, 20*time.Millisecond, what)
}

// expires asks until a run of a repository can be started, and is done.
func expires(t *testing.T, s *Service, name string) {
	t.Helper()
	var out api.Expiry
	eventually(t, "an expiry of "+name, func() (ok bool) {
		var err error
		out, err = s.Expire(t.Context(), api.ExpireRequest{Repo: name, By: "test"})
		return err == nil
	})
	until(t, s, "its end", func(*api.Snapshot) bool {
		run, err := s.Run(t.Context(), out.Run.ID)
		return err == nil && run.State == api.Done
	})
}

func TestLeadWithoutFirstRepository(t *testing.T) {
	t.Parallel()
	one, two := memory.New(), memory.New()
	a, eyesA := begin(t, "a", one, two)
	eventually(t, "a leads both", func() bool { return leadsOf(a) == "repo1 repo2 " })
	b, eyesB := begin(t, "b", one, two)
	until(t, b, "b follows", func(s *api.Snapshot) bool { return s.Leader == "a" && !s.Leading })
	_, err := b.Expire(t.Context(), api.ExpireRequest{Repo: "repo1"})
	require.ErrorIs(t, err, api.ErrNotLeader)
	expires(t, a, "repo1")

	// Nobody sees the first one: the other is worked on, by the same.
	eyesA[0].away(true)
	eyesB[0].away(true)
	eventually(t, "a leads what is left", func() bool { return leadsOf(a) == "repo2 " })
	expires(t, a, "repo2")
	_, err = a.Verify(t.Context(), "repo1")
	require.ErrorIs(t, err, api.ErrNotLeader)
	until(t, a, "a problem", func(s *api.Snapshot) bool {
		return s.Level == api.Critical && s.Problems[0].Code == "repository-down" && s.Problems[0].Repo == "repo1" && s.Repos[1].Level == api.OK
	})
	require.Empty(t, leadsOf(b))
	eyesA[0].away(false)
	eventually(t, "a leads both again", func() bool { return leadsOf(a) == "repo1 repo2 " })
	eyesB[0].away(false)
	until(t, b, "b follows still", func(s *api.Snapshot) bool { return s.Leader == "a" && !s.Leading })

	// Only a does not see the first one: each leads what nobody else can. Then a
	// sees it again, and gives way.
	eyesA[0].away(true)
	eventually(t, "b leads the first", func() bool { return leadsOf(b) == "repo1 " && leadsOf(a) == "repo2 " })
	expires(t, b, "repo1")
	expires(t, a, "repo2")
	eyesA[0].away(false)
	eventually(t, "b leads both", func() bool { return leadsOf(b) == "repo1 repo2 " && leadsOf(a) == "" })
	expires(t, b, "repo2")
	until(t, a, "a knows that", func(s *api.Snapshot) bool { return s.Leader == "b" && !s.Leading && len(s.Runs) == 5 })
}

// A repository is dead for many times of its schedule. The other one goes on; in
// the dead one nothing starts, and when it is back, what was missed is caught
// up, once. An hour is 12 seconds here.
func TestRepositoryDeadForAnHour(t *testing.T) {
	t.Parallel()
	s, eyes := begin(t, "a", memory.New(), memory.New())
	ctx := t.Context()
	each, err := scheduler.ParseSchedule("* * * * * *", time.UTC)
	require.NoError(t, err)
	set := s.settings()
	set.Repos = nil
	for _, e := range eyes {
		e.repo.Jobs = append(e.repo.Jobs, scheduler.Job{Repo: e.repo.name(), Kind: scheduler.Verify, Schedule: each, Attempts: 1})
		set.Repos = append(set.Repos, e.repo)
	}
	_, err = s.Reload(ctx, set)
	require.NoError(t, err)
	runs := func(name string) (all []repo.JobRun) {
		for _, run := range s.repository(name).runs() {
			if run.Kind == string(scheduler.Verify) {
				all = append(all, run)
			}
		}
		return all
	}
	eventually(t, "runs in both", func() bool { return len(runs("repo1")) > 1 && len(runs("repo2")) > 1 })
	eyes[0].away(true)
	eventually(t, "the lease of the dead one is lost", func() bool { return leadsOf(s) == "repo2 " })
	dead := time.Now()
	before, other := len(runs("repo1")), len(runs("repo2"))
	eventually(t, "an hour of the other", func() bool { return len(runs("repo2")) >= other+10 && time.Since(dead) > 12*time.Second })
	require.Equal(t, before, len(runs("repo1")), "nothing starts where nobody leads")
	back := time.Now()
	eyes[0].away(false)
	eventually(t, "runs in both again", func() bool { return len(runs("repo1")) > before+2 })
	missed := 0
	for _, run := range runs("repo1") {
		if run.Due.After(dead.Add(2*time.Second)) && run.Due.Before(back) {
			missed++
		}
	}
	require.LessOrEqual(t, missed, 1, "of all that was missed the last one is caught up")
}

func TestActions(t *testing.T) {
	t.Parallel()
	store := memory.New()
	s, _ := begin(t, "a", store)
	ctx := t.Context()
	expires(t, s, "repo1")
	_, err := s.Backup(ctx, api.BackupRequest{Repo: "repo9", Type: "full"})
	require.ErrorIs(t, err, api.ErrInvalid)
	_, err = s.Backup(ctx, api.BackupRequest{Repo: "repo1", Type: "expire"})
	require.ErrorIs(t, err, api.ErrInvalid)
	_, err = s.Backup(ctx, api.BackupRequest{Repo: "repo1", Type: "full", Annotations: map[string]string{RunAnnotation: "x"}})
	require.ErrorIs(t, err, api.ErrInvalid)
	_, err = s.Run(ctx, "nothing")
	require.ErrorIs(t, err, api.ErrNotFound)
	_, err = s.Cancel(ctx, "nothing")
	require.ErrorIs(t, err, api.ErrNotFound)
	require.ErrorIs(t, s.Pause(ctx, "repo9", true), api.ErrInvalid)

	// No node: the backup fails, and says why; the key finds it again.
	run, err := s.Backup(ctx, api.BackupRequest{Repo: "repo1", Type: "full", Key: "k", By: "ann"})
	require.NoError(t, err)
	again, err := s.Backup(ctx, api.BackupRequest{Repo: "repo1", Type: "full", Key: "k"})
	require.NoError(t, err)
	require.Equal(t, run.ID, again.ID)
	until(t, s, "its failure", func(snap *api.Snapshot) bool {
		return len(snap.Problems) > 0 && snap.Problems[0].Code == "backup-failed" && len(snap.Runs) == 3
	})
	run, err = s.Run(ctx, run.ID)
	require.NoError(t, err)
	require.Equal(t, api.Failed, run.State)
	require.Contains(t, run.Error, cluster.ErrNoNode.Error())
	_, err = s.Cancel(ctx, run.ID)
	require.ErrorIs(t, err, api.ErrNotRunning)

	require.NoError(t, s.Pause(ctx, "", true))
	_, err = s.Backup(ctx, api.BackupRequest{Repo: "repo1", Type: "full", Key: "other"})
	require.ErrorIs(t, err, api.ErrPaused)
	until(t, s, "the pause", func(snap *api.Snapshot) bool { return snap.Repos[0].Paused })
	next, _ := begin(t, "b", store)
	until(t, next, "the pause and the history", func(snap *api.Snapshot) bool { return snap.Repos[0].Paused && len(snap.Runs) == 3 })
	require.NoError(t, next.Pause(ctx, "repo1", false))
	until(t, s, "the end of the pause", func(snap *api.Snapshot) bool { return !snap.Repos[0].Paused })

	answer, err := s.CanRestore(ctx, api.RestoreQuestion{At: time.Now()})
	require.NoError(t, err)
	require.False(t, answer.Possible)
	require.Contains(t, answer.Reason, "nothing can be restored yet")
	_, err = s.CanRestore(ctx, api.RestoreQuestion{})
	require.ErrorIs(t, err, api.ErrInvalid)
}

// A reload keeps repositories that stay where they are, takes others, and lets
// those go that are not there any more.
func TestReload(t *testing.T) {
	t.Parallel()
	one, two := memory.New(), memory.New()
	s, eyes := begin(t, "a", one)
	eventually(t, "it leads", func() bool { return leadsOf(s) == "repo1 " })
	s.Refuse(errors.New("line 3: nonsense\nand more"))
	until(t, s, "the refusal", func(snap *api.Snapshot) bool {
		return len(snap.Problems) == 1 && snap.Problems[0].Code == "config-invalid" && snap.Level == api.Warning
	})
	ctx := t.Context()
	set := s.settings()
	again, more := see(t, "repo1", one), see(t, "repo2", two)
	again.repo.Schedules = map[string]string{"full": "@daily"}
	set.Repos = []Repo{again.repo, more.repo}
	unused, err := s.Reload(ctx, set)
	require.NoError(t, err)
	require.Equal(t, []Repo{again.repo}, unused)
	eventually(t, "it leads both", func() bool { return leadsOf(s) == "repo1 repo2 " })
	until(t, s, "both", func(snap *api.Snapshot) bool {
		return len(snap.Repos) == 2 && snap.Repos[0].Schedules["full"] == "@daily" && len(snap.Problems) == 0
	})
	require.Same(t, eyes[0].repo.Watch, s.repositories()[0].conf().Watch)
	set = s.settings()
	set.Repos = set.Repos[1:]
	unused, err = s.Reload(ctx, set)
	require.NoError(t, err)
	require.Len(t, unused, 1)
	require.Same(t, eyes[0].repo.Watch, unused[0].Watch)
	eventually(t, "it leads the second", func() bool { return leadsOf(s) == "repo2 " })
	until(t, s, "one", func(snap *api.Snapshot) bool { return len(snap.Repos) == 1 && snap.Repos[0].Name == "repo2" })
	set.Repos = nil
	_, err = s.Reload(ctx, set)
	require.Error(t, err)
	expires(t, s, "repo2")
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A moment is in one window, or between two, or beyond them.
func TestCanRestore(t *testing.T) {
	s, err := New(Options{Settings: Settings{Repos: []Repo{see(t, "repo1", memory.New()).repo}}, Cluster: "hippo", Holder: "a"})
	require.NoError(t, err)
	r := s.repository("repo1")
	backup := func(label repo.Label, at time.Duration, lsn pg.LSN) repo.Summary {
		return repo.Summary{Label: label, Start: noon.Add(at - time.Minute), Stop: noon.Add(at), StartLSN: lsn, StopLSN: lsn + 100, Timeline: 1}
	}
	r.view.at = noon
	r.view.holdings = repo.Holdings{SegmentSize: 1 << 20, Backups: []repo.Summary{
		backup("20261122-115900F", 0, 1<<20), backup("20261122-125900F", time.Hour, 5<<20), backup("20261122-155900F", 4*time.Hour, 30<<20),
	}}
	r.view.windows = []repo.Window{
		{Timeline: 1, Backups: []repo.Label{"20261122-115900F", "20261122-125900F"}, Earliest: noon, Latest: noon.Add(2 * time.Hour), To: 9 << 20, Gap: true},
		{Timeline: 1, Backups: []repo.Label{"20261122-155900F"}, Earliest: noon.Add(4 * time.Hour), Latest: noon.Add(5 * time.Hour), To: 40 << 20},
	}
	ask := func(at time.Duration) api.RestoreAnswer {
		a, err := s.CanRestore(t.Context(), api.RestoreQuestion{At: noon.Add(at)})
		require.NoError(t, err)
		return a
	}
	in := ask(90 * time.Minute)
	require.True(t, in.Possible)
	require.Len(t, in.Ways, 2)
	require.Equal(t, repo.Label("20261122-125900F"), in.Ways[0].Backup, "the least WAL")
	require.EqualValues(t, 4<<20, in.Ways[0].WALBytes)
	require.Equal(t, "walkeep restore --repo repo1 --backup 20261122-125900F --target-time '2026-11-22 13:30:00+00' --target-timeline 1 --pgdata DIRECTORY", in.Ways[0].Command)
	require.Len(t, ask(30*time.Minute).Ways, 1)
	gap := ask(3 * time.Hour)
	require.False(t, gap.Possible)
	require.Contains(t, gap.Reason, "gap")
	require.Equal(t, noon.Add(2*time.Hour), gap.Before)
	require.Equal(t, noon.Add(4*time.Hour), gap.After)
	early, late := ask(-time.Hour), ask(9*time.Hour)
	require.Contains(t, early.Reason, "before")
	require.Equal(t, noon, early.After)
	require.Contains(t, late.Reason, "after the last")
	require.Equal(t, noon.Add(5*time.Hour), late.Before)
	r.view.err = errAway
	require.Contains(t, ask(9*time.Hour).Reason, "repo1 cannot be looked at")
}
