// Package scenes has snapshots of services in typical states, for the tests of
// what shows them: the page, metrics, REST.
package scenes

import (
	"fmt"
	"slices"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Now is the moment that the snapshots are of: a Monday morning.
var Now = time.Date(2026, 11, 23, 3, 12, 40, 0, time.UTC)

const (
	segment = pg.LSN(16 << 20)
	day     = 24 * time.Hour
	gib     = int64(1) << 30
)

// AllWell is a cluster of three nodes and two repositories, both whole.
func AllWell() *api.Snapshot {
	id := pg.SystemID(7412345678901234567)
	s := &api.Snapshot{
		Cluster: "hippo", Version: "1.0.0", At: Now.Add(-2 * time.Second), TimeZone: "Europe/Berlin",
		Leader: "walkeep-5d8f7c-x2x9k", Leading: true, Level: api.OK, SystemID: &id,
		Nodes: []api.Node{
			node("hippo-0", "primary", 0x5A3F80012C8, 0), node("hippo-1", "standby", 0x5A3F8001200, 200),
			node("hippo-2", "standby", 0x5A3F8000000, 4808),
		},
	}
	s.Repos = []api.Repository{
		Repository("repo1", "s3://pgo-auto-backups/hippo", Now, 5),
		Repository("repo2", "file:///backups/hippo", Now.Add(-20*time.Minute), 2),
	}
	s.Next = []api.NextRun{
		{Repo: "repo1", Kind: "incremental", At: Now.Add(47 * time.Minute)},
		{Repo: "repo2", Kind: "incremental", At: Now.Add(67 * time.Minute)},
		{Repo: "repo1", Kind: "differential", At: Now.Add(22 * time.Hour)},
		{Repo: "repo1", Kind: "full", At: Now.Add(5*day + 22*time.Hour)},
	}
	for i := range 10 {
		at := Now.Add(-12*time.Minute - time.Duration(i)*time.Hour)
		s.Runs = append(s.Runs, api.Run{
			ID: fmt.Sprintf("run-%03d", 200-i), Repo: "repo1", Kind: "incremental", State: api.Done, Attempt: 1,
			Node: "hippo-1", Due: at, Started: at, Ended: at.Add(41 * time.Second), TotalBytes: gib, CopiedBytes: gib,
		})
	}
	return s
}

func node(name, role string, lsn pg.LSN, lag int64) api.Node {
	return api.Node{
		Name: name, Role: role, Up: true, Timeline: 3, LSN: lsn, Lag: lag, Version: "17.10",
		Agent: &api.Agent{URL: "https://" + name + ":7443", Up: true, Version: "1.0.0", Queues: []api.AgentQueue{
			{Repo: "repo1", Pushed: 1812, Deduplicated: 3630, Repaired: 2}, {Repo: "repo2", Pushed: 1790, Deduplicated: 3650},
		}},
	}
}

// Repository has weeks of a full backup on Sunday, a differential one each day
// and an incremental one each hour, and WAL of three timelines without a gap.
func Repository(name, location string, now time.Time, weeks int) api.Repository {
	r := api.Repository{
		Name: name, Location: location, Level: api.OK, LookedAt: now.Add(-20 * time.Second),
		Verified: now.Add(-26 * time.Hour), Expired: now.Add(-12 * time.Minute), StoredBytes: int64(weeks) * 71 * gib,
		Schedules: map[string]string{"full": "0 1 * * 0", "differential": "0 1 * * 1-6", "incremental": "0 * * * *", "drill": "0 5 * * 6"},
		Retention: fmt.Sprintf("Full backups of %d days are kept, and the newest older one.", weeks*7),
	}
	r.DrillPassed = &api.Drill{
		Started: now.Add(-46 * time.Hour), Ended: now.Add(-45 * time.Hour), Passed: true, By: "walkeep-5d8f7c-x2x9k", Timeline: 3, LSN: 0x5A3F0000028,
		Bytes: 212 * gib, RestoreSeconds: 1260, RecoverySeconds: 74, CheckSeconds: 902, Checks: 3,
	}
	r.Drill = r.DrillPassed
	start := now.Add(-time.Duration(weeks) * 7 * day).Truncate(day)
	for start.Weekday() != time.Sunday {
		start = start.Add(-day)
	}
	var full, parent repo.Label
	lsn := pg.LSN(0x5A000000000)
	for t := start.Add(time.Hour); t.Before(now); t = t.Add(time.Hour) {
		b := api.Backup{
			Start: t, Stop: t.Add(35 * time.Second), StartLSN: lsn, StopLSN: lsn + 4096, Timeline: 3, From: "hippo-1",
			Bytes: 212 * gib, StoredBytes: gib / 5,
		}
		stamp := t.Format("20060102-150405")
		switch {
		case t.Hour() == 1 && t.Weekday() == time.Sunday:
			full = repo.Label(stamp + "F")
			b.Label, b.Type, b.Stop, b.StoredBytes = full, repo.Full, t.Add(23*time.Minute), 61*gib
		case t.Hour() == 1:
			b.Label, b.Type, b.Parent, b.StoredBytes = full+repo.Label("_"+stamp+"D"), repo.Differential, full, 4*gib
		default:
			b.Label, b.Type, b.Parent = full+repo.Label("_"+stamp+"I"), repo.Incremental, parent
		}
		parent = b.Label
		lsn += 40 * segment
		r.Backups = append(r.Backups, b)
	}
	slices.Reverse(r.Backups)
	cover(&r, start.Add(time.Hour), now, lsn)
	return r
}

// cover gives a repository timelines 1 to 3 from start to now, and a window.
func cover(r *api.Repository, start, now time.Time, end pg.LSN) {
	length := now.Sub(start)
	begin := pg.LSN(0x5A000000000)
	third := (end - begin) / 3 / segment * segment
	for i := range 3 {
		t := api.Timeline{
			Timeline: pg.Timeline(i + 1), Parent: pg.Timeline(i), Segments: int(third / segment),
			Runs:        []api.Span{{From: begin + pg.LSN(i)*third, To: begin + pg.LSN(i+1)*third}},
			FirstCommit: start.Add(length * time.Duration(i) / 3), LastCommit: start.Add(length * time.Duration(i+1) / 3),
		}
		if i > 0 {
			t.Switch = begin + pg.LSN(i)*third + 0x1C8
		}
		r.Timelines = append(r.Timelines, t)
	}
	last := &r.Timelines[2]
	last.LastCommit = now.Add(-3 * time.Second)
	w := repo.Window{
		Timeline: 3, From: begin, To: last.Runs[0].To, Earliest: r.Backups[len(r.Backups)-1].Stop, Latest: last.LastCommit,
	}
	for i := len(r.Backups) - 1; i >= 0; i-- {
		w.Backups = append(w.Backups, r.Backups[i].Label)
	}
	r.Windows = []repo.Window{w}
}

// WithGap has two gaps in its second repository, a conflict and an agent that
// waits.
func WithGap() *api.Snapshot {
	s := AllWell()
	r := &s.Repos[1]
	r.Level, s.Level = api.Critical, api.Critical
	from, until := Now.Add(-9*day), Now.Add(-9*day+5*time.Hour)
	three := &r.Timelines[2]
	hole := three.Runs[0].From + 400*segment
	r.Gaps = []api.Gap{
		{Timeline: 2, Start: r.Timelines[1].Runs[0].From + 50*segment, End: r.Timelines[1].Runs[0].From + 51*segment, Segments: 1, Before: from, After: until},
		{Timeline: 3, Start: hole, End: hole + 3*segment, Segments: 3, Before: Now.Add(-31 * time.Hour), After: Now.Add(-30 * time.Hour)},
	}
	three.Runs = []api.Span{{From: three.Runs[0].From, To: hole}, {From: hole + 3*segment, To: three.Runs[0].To}}
	w := r.Windows[0]
	old, middle := w, w
	old.Latest, middle.Earliest, middle.Latest, w.Earliest = from, until, Now.Add(-31*time.Hour), Now.Add(-30*time.Hour)
	old.Gap, middle.Gap = true, true
	r.Windows = []repo.Window{old, middle, w}
	r.Conflicts = []string{"00000002000005A30000007F"}
	r.Backups[3].PageErrors = 2
	r.Backups[40].PinnedUntil = Now.Add(200 * day)
	s.Problems = []api.Problem{
		{Level: api.Critical, Code: "wal-gap", Repo: "repo2", Since: Now.Add(-30 * time.Hour), Text: "4 segments that backups need are in no repository and on no node."},
		{Level: api.Warning, Code: "wal-conflict", Repo: "repo2", Since: Now.Add(-9 * day), Text: "Two nodes archived 00000002000005A30000007F with different contents; the second copy is under conflict/."},
		{Level: api.Warning, Code: "wal-behind", Repo: "repo2", Node: "hippo-2", Since: Now.Add(-4 * time.Minute), Text: "7 segments wait to be archived."},
	}
	r.Drill = &api.Drill{
		Started: Now.Add(-5 * time.Hour), Ended: Now.Add(-4 * time.Hour), By: "walkeep-5d8f7c-x2x9k", Bytes: 212 * gib, RestoreSeconds: 1301, RecoverySeconds: 66,
		CheckSeconds: 877, Checks: 3, Error: "orders: it yields false",
	}
	s.Problems = append(s.Problems, api.Problem{
		Level: api.Critical, Code: "drill-failed", Repo: "repo2", Since: Now.Add(-4 * time.Hour), Text: "the last rehearsal of a restore from repo2 failed: orders: it yields false",
	})
	r.Behind, r.BehindSince = 7, Now.Add(-4*time.Minute)
	s.Nodes[2].Agent.Queues[1] = api.AgentQueue{
		Repo: "repo2", Waiting: 7, WaitingBytes: 7 << 24, Oldest: Now.Add(-4 * time.Minute), Error: "put object: write /backups/hippo/wal: no space left on device",
	}
	return s
}

// DeadRepository cannot reach its first repository for an hour, and has lost a
// node and some runs.
func DeadRepository() *api.Snapshot {
	s := AllWell()
	r := &s.Repos[0]
	r.Level, s.Level = api.Critical, api.Critical
	r.LookedAt = Now.Add(-63 * time.Minute)
	r.Error = "list backups in s3://pgo-auto-backups/hippo: dial tcp 10.4.7.19:443: connect: connection refused"
	r.Behind, r.BehindSince = 212, Now.Add(-62*time.Minute)
	s.Nodes[2].Up, s.Nodes[2].Role, s.Nodes[2].Error, s.Nodes[2].Agent = false, "unknown", "dial tcp 10.4.9.3:5432: i/o timeout", &api.Agent{Error: "dial tcp 10.4.9.3:7443: i/o timeout"}
	s.Nodes[2].LSN, s.Nodes[2].Timeline, s.Nodes[2].Lag = 0, 0, -1
	s.Problems = []api.Problem{
		{Level: api.Critical, Code: "repository-down", Repo: "repo1", Since: Now.Add(-63 * time.Minute), Text: r.Error},
		{Level: api.Critical, Code: "backup-failed", Repo: "repo1", Since: Now.Add(-12 * time.Minute), Text: "The incremental backup failed 3 times; the next attempt is due at 04:00."},
		{Level: api.Warning, Code: "node-down", Node: "hippo-2", Since: Now.Add(-20 * time.Minute), Text: "hippo-2 does not answer: dial tcp 10.4.9.3:5432: i/o timeout"},
	}
	for i := range 3 {
		at := Now.Add(-time.Duration(12+i*10) * time.Minute)
		s.Runs = append([]api.Run{{
			ID: fmt.Sprintf("run-%03d", 300-i), Repo: "repo1", Kind: "incremental", State: api.Failed, Attempt: 3 - i, Node: "hippo-1",
			Started: at, Ended: at.Add(90 * time.Second), Error: "put pack 000001 to s3://pgo-auto-backups/hippo: dial tcp 10.4.7.19:443: connect: connection refused",
		}}, s.Runs...)
	}
	return s
}

// Running has a full backup half done, one that is waiting and a verification.
func Running() *api.Snapshot {
	s := AllWell()
	s.Repos[1].Paused = true
	s.Runs = append([]api.Run{
		{
			ID: "run-401", Repo: "repo1", Kind: "full", State: api.Running, Manual: true, Attempt: 1, By: "anna", Node: "hippo-1", Stage: "reading base/16384",
			TotalBytes: 212 * gib, CopiedBytes: 93*gib + gib/3, Rate: 181 << 20, Left: 672, Started: Now.Add(-9 * time.Minute), Label: "20261123-030340F",
		},
		{ID: "run-402", Repo: "repo2", Kind: "verify", State: api.Running, Attempt: 1, Stage: "reading packs of 20261122-010000F", CopiedBytes: 4 * gib, Rate: 320 << 20, Left: -1, Started: Now.Add(-13 * time.Second)},
		{ID: "run-403", Repo: "repo1", Kind: "incremental", State: api.Queued, Attempt: 1, Left: -1, Due: Now.Add(-12 * time.Minute)},
	}, s.Runs...)
	return s
}

// Large has four repositories of 5,000 backups each, a million segments on 60
// timelines, and gaps.
func Large() *api.Snapshot {
	s := AllWell()
	s.Repos = nil
	for i := range 4 {
		r := Repository(fmt.Sprintf("repo%d", i+1), fmt.Sprintf("s3://bucket%d/hippo", i+1), Now, 30)
		r.Backups = r.Backups[:5000]
		r.Timelines = nil
		lsn := pg.LSN(0x5A000000000)
		first := Now.Add(-30 * 7 * day)
		for t := range 60 {
			line := api.Timeline{
				Timeline: pg.Timeline(t + 1), Parent: pg.Timeline(t), Switch: lsn, Segments: 16667,
				FirstCommit: first.Add(time.Duration(t) * 84 * time.Hour), LastCommit: first.Add(time.Duration(t+1) * 84 * time.Hour),
			}
			for range 20 {
				line.Runs = append(line.Runs, api.Span{From: lsn, To: lsn + 832*segment})
				lsn += 833 * segment
				r.Gaps = append(r.Gaps, api.Gap{Timeline: line.Timeline, Start: lsn - segment, End: lsn, Segments: 1})
			}
			r.Timelines = append(r.Timelines, line)
		}
		s.Repos = append(s.Repos, r)
	}
	return s
}
