package apitest

import (
	"fmt"
	"slices"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Now is the moment of Sample, always the same.
func Now() time.Time { return time.Date(2026, 11, 22, 12, 34, 56, 0, time.UTC) }

// Sample is a cluster of three nodes with three repositories: one is well, one
// has a gap, one does not answer. A backup is running and one failed.
func Sample() *api.Snapshot {
	now := Now()
	system := pg.SystemID(7569321407812345678)
	repo1 := sampleRepo("repo1", "s3://pgo-auto-backups/hippo", 5)
	repo1.Schedules = map[string]string{"full": "0 1 * * 0", "differential": "0 1 * * 1-6", "incremental": "0 * * * *"}
	repo1.Retention = "fulls of the last 30 days and one more, differentials of the last 7"
	repo2 := sampleRepo("repo2", "gs://pgo-manual-backups/hippo", 2)
	repo2.Level = api.Critical
	repo2.Gaps = []api.Gap{{
		Timeline: 2, Start: 0x3_58000000, End: 0x3_5A000000, Segments: 2,
		Before: now.Add(-30 * time.Hour), After: now.Add(-26 * time.Hour),
	}}
	repo2.Conflicts = []string{"000000020000000300000061"}
	repo3 := api.Repository{
		Name: "repo3", Location: "azure://hippo/backups/hippo", Level: api.Critical, LookedAt: now.Add(-time.Hour),
		Error:   "list the repository: dial tcp 10.0.0.9:443: connect: connection refused",
		Backups: []api.Backup{}, Timelines: []api.Timeline{}, Gaps: []api.Gap{}, Conflicts: []string{}, Windows: []repo.Window{},
		Schedules: map[string]string{}, Behind: 44, BehindSince: now.Add(-time.Hour), Retention: "everything is kept",
	}
	return &api.Snapshot{
		Cluster: "hippo", Version: "v0.1.0", At: now, TimeZone: "Europe/Berlin", Leader: "walkeep-0", Leading: true,
		Level: api.Critical, SystemID: &system,
		Problems: []api.Problem{
			{Level: api.Critical, Code: "wal-gap", Repo: "repo2", Since: now.Add(-26 * time.Hour), Text: "repo2 lacks 2 segments of timeline 2, from 3/58000000"},
			{Level: api.Critical, Code: "repository-down", Repo: "repo3", Since: now.Add(-time.Hour), Text: "repo3 does not answer: connection refused"},
			{Level: api.Warning, Code: "node-down", Node: "pg-2", Since: now.Add(-10 * time.Minute), Text: "pg-2 does not answer"},
		},
		Nodes: sampleNodes(), Repos: []api.Repository{repo1, repo2, repo3}, Runs: sampleRuns(),
		Next: []api.NextRun{
			{Repo: "repo1", Kind: "incremental", At: now.Add(25 * time.Minute)},
			{Repo: "repo1", Kind: "differential", At: now.Add(12 * time.Hour)},
		},
	}
}

func sampleNodes() []api.Node {
	now := Now()
	queue := func(r string) api.AgentQueue { return api.AgentQueue{Repo: r, Pushed: 812, Deduplicated: 1630} }
	dead := api.AgentQueue{
		Repo: "repo3", Waiting: 44, WaitingBytes: 44 << 24, Oldest: now.Add(-time.Hour), Error: "connection refused", Pushed: 768,
	}
	agent := func(n string) *api.Agent {
		return &api.Agent{URL: "https://" + n + ":7443", Up: true, Version: "v0.1.0", Queues: []api.AgentQueue{queue("repo1"), queue("repo2"), dead}}
	}
	return []api.Node{
		{Name: "pg-0", Role: "primary", Up: true, Timeline: 2, LSN: 0x3_8A000148, Version: "17.6", Agent: agent("pg-0")},
		{Name: "pg-1", Role: "standby", Up: true, Timeline: 2, LSN: 0x3_8A000060, Lag: 232, Version: "17.6", Agent: agent("pg-1")},
		{Name: "pg-2", Role: "unknown", Error: "dial tcp 10.0.0.3:5432: connect: no route to host", Lag: -1},
	}
}

func sampleRuns() []api.Run {
	now := Now()
	return []api.Run{
		{
			ID: "20261122-123000-repo1-incremental", Repo: "repo1", Kind: "incremental", State: api.Running, Attempt: 1, Node: "pg-1",
			Stage: "copying files", TotalBytes: 12 << 30, CopiedBytes: 5 << 30, Rate: 180 << 20, Left: 40,
			Due: now.Add(-5 * time.Minute), Started: now.Add(-290 * time.Second),
		},
		{
			ID: "20261122-113000-repo3-full", Repo: "repo3", Kind: "full", State: api.Failed, Manual: true, By: "operator", Attempt: 3, Left: -1,
			Due: now.Add(-time.Hour), Started: now.Add(-time.Hour), Ended: now.Add(-50 * time.Minute),
			Error: "begin the backup: list the repository: connection refused",
		},
		{
			ID: "20261122-010000-repo1-full", Repo: "repo1", Kind: "full", State: api.Done, Attempt: 1, Node: "pg-1", Left: -1,
			TotalBytes: 96 << 30, CopiedBytes: 96 << 30, Due: now.Add(-11 * time.Hour), Started: now.Add(-11 * time.Hour),
			Ended: now.Add(-10 * time.Hour), Label: "20261122-010000F",
		},
	}
}

// sampleRepo has n fulls, one each day, and differentials and incrementals
// between them.
func sampleRepo(name, location string, n int) api.Repository {
	now := Now()
	r := api.Repository{
		Name: name, Location: location, Level: api.OK, LookedAt: now.Add(-3 * time.Second), Backups: Backups(n * 4),
		Gaps: []api.Gap{}, Conflicts: []string{}, StoredBytes: int64(n) * 30 << 30, Verified: now.Add(-20 * time.Hour),
		Expired: now.Add(-10 * time.Hour), Schedules: map[string]string{"full": "0 1 * * *"}, Retention: fmt.Sprintf("%d fulls", n),
		Timelines: []api.Timeline{
			{
				Timeline: 1, Runs: []api.Span{{From: 0x2_00000000, To: 0x3_3C000000}}, Segments: 316,
				FirstCommit: now.AddDate(0, 0, -n), LastCommit: now.Add(-40 * time.Hour),
			},
			{
				Timeline: 2, Parent: 1, Switch: 0x3_3B8F2A10, Runs: []api.Span{{From: 0x3_3B000000, To: 0x3_8A000000}}, Segments: 79,
				FirstCommit: now.Add(-40 * time.Hour), LastCommit: now.Add(-9 * time.Second),
			},
		},
	}
	r.Drill = &api.Drill{
		Started: now.Add(-30 * time.Hour), Ended: now.Add(-29 * time.Hour), Passed: true, By: "walkeep-0", Backup: r.Backups[len(r.Backups)-1].Label, Timeline: 2,
		LSN: 0x3_89000028, Bytes: 40 << 30, RestoreSeconds: 311.2, RecoverySeconds: 24.8, CheckSeconds: 190, Checks: 2,
	}
	r.DrillPassed = r.Drill
	oldest := r.Backups[len(r.Backups)-1]
	var labels []repo.Label
	for _, b := range slices.Backward(r.Backups) {
		labels = append(labels, b.Label)
	}
	r.Windows = []repo.Window{{
		Timeline: 2, Backups: labels, Earliest: oldest.Stop, Latest: now.Add(-9 * time.Second), From: oldest.StopLSN, To: 0x3_8A000000,
	}}
	return r
}

// Backups makes n backups, the newest first: a full, a differential that needs
// it and two incrementals each day, the last full at one o'clock of today.
func Backups(n int) []api.Backup {
	now := Now()
	list := make([]api.Backup, 0, n)
	newest := time.Date(now.Year(), now.Month(), now.Day(), 1, 0, 0, 0, time.UTC) // full
	var full, parent repo.Label
	for i := range n {
		start := newest.AddDate(0, 0, i/4-(n-1)/4).Add(time.Duration(i%4) * 3 * time.Hour)
		stamp := start.Format("20060102-150405")
		b := api.Backup{
			Start: start, Stop: start.Add(50 * time.Minute), Timeline: 2, From: "pg-1", Bytes: 96 << 30,
			StartLSN: pg.LSN(0x2_00000028 + i<<25), StopLSN: pg.LSN(0x2_00000100 + i<<25),
		}
		switch i % 4 {
		case 0:
			b.Type, b.Label, b.StoredBytes = repo.Full, repo.Label(stamp+"F"), 30<<30
			full, parent = b.Label, b.Label
			b.Annotations = map[string]string{"ticket": "OPS-12"}
		case 1:
			b.Type, b.Label, b.Parent, b.StoredBytes = repo.Differential, full+"_"+repo.Label(stamp+"D"), full, 3<<30
			parent = b.Label
		default:
			b.Type, b.Label, b.Parent, b.StoredBytes = repo.Incremental, full+"_"+repo.Label(stamp+"I"), parent, 1<<30
			parent = b.Label
		}
		list = append(list, b)
	}
	slices.Reverse(list)
	return list
}

// contentsOf is what a backup of the sample holds.
func contentsOf(name string, b api.Backup) api.BackupContents {
	c := api.BackupContents{Repo: name, Summary: repo.Summary{
		Format: repo.Format, Label: b.Label, Type: b.Type, Parent: b.Parent, Start: b.Start, Stop: b.Stop, StartLSN: b.StartLSN, StopLSN: b.StopLSN,
		Timeline: b.Timeline, SystemID: 7569321407812345678, PGVersion: 170006, SegmentSize: pg.DefaultSegmentSize, FromStandby: true, Node: b.From,
		Annotations: b.Annotations, Bytes: b.Bytes, StoredBytes: b.StoredBytes, Files: 2113, Codec: "zstd", WalkeepVersion: "v0.1.0",
		Manifest: repo.ManifestRef{Size: 311_296, SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
	}, Contents: repo.Contents{
		DataChecksums: true, PGData: "/pgdata/pg17", Directories: 27, BadPages: []repo.BadPages{},
		Tablespaces: []repo.TablespaceUsage{{OID: 16385, Path: "/ssd/history", Bytes: 20 << 30}},
		Databases:   []repo.DatabaseUsage{{OID: 16384, Files: 1205, Bytes: 95 << 30}, {OID: 5, Files: 301, Bytes: 8 << 20}},
		Largest:     []repo.FileUsage{{Path: "base/16384/16412", Bytes: 1 << 30}},
		Detect:      []repo.DetectUsage{{By: "whole", Files: 2113, Bytes: b.Bytes, Own: b.Bytes}},
	}}
	if b.Parent != "" {
		c.References = []repo.Label{b.Parent}
		c.Detect = []repo.DetectUsage{{By: "summaries", Files: 1800, Bytes: 95 << 30, Own: 2 << 30}, {By: "whole", Files: 313, Bytes: 1 << 30, Own: 1 << 30}}
	}
	return c
}

// Large is Sample with n backups in its first repository.
func Large(n int) *api.Snapshot {
	s := Sample()
	s.Repos[0].Backups = Backups(n)
	return s
}
