package repo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// Branch is one timeline, with what a repository holds of it.
type Branch struct {
	Timeline pg.Timeline `json:"timeline"`
	// Parent is the timeline that it leaves, at Fork, and Reason what the server
	// says of that. Parent is 0 for the first one, and for one whose history file
	// is not there.
	Parent pg.Timeline `json:"parent,omitempty"`
	Fork   pg.LSN      `json:"fork,omitzero"`
	Reason string      `json:"reason,omitempty"`
	// Runs are the archived segments, without a hole each.
	Runs          []Run                `json:"runs"`
	Backups       []BranchBackup       `json:"backups"`
	RestorePoints []BranchRestorePoint `json:"restore_points"`
	// LastCommit is the end of the last transaction in its WAL; zero: none is
	// known.
	LastCommit time.Time `json:"last_commit,omitzero"`
	// Unsearched is how many of its oldest segments were not searched for
	// restore points.
	Unsearched int `json:"unsearched,omitempty"`
}

// BranchBackup is a backup that ended on a timeline.
type BranchBackup struct {
	Label   Label      `json:"label"`
	Type    BackupType `json:"type"`
	Stop    time.Time  `json:"stop"`
	StopLSN pg.LSN     `json:"stop_lsn"`
}

// BranchRestorePoint is a named restore point in the WAL of a timeline.
type BranchRestorePoint struct {
	Name string    `json:"name"`
	LSN  pg.LSN    `json:"lsn"`
	Time time.Time `json:"time"`
}

// Branches describes all timelines, by number. Restore points are in the heads
// of the segments, one small request each: of every timeline the newest most
// segments are searched.
func (h Holdings) Branches(ctx context.Context, heads *HeadCache, most int) ([]Branch, error) {
	var all []Branch
	for _, t := range h.Timelines() {
		b := Branch{Timeline: t, Runs: slices.Clone(h.Runs[t]), Backups: []BranchBackup{}, RestorePoints: []BranchRestorePoint{}}
		if entries := h.Histories[t].Entries; len(entries) > 0 {
			last := entries[len(entries)-1]
			b.Parent, b.Fork, b.Reason = last.Timeline, last.End, last.Reason
		}
		for _, s := range h.Backups {
			if s.Timeline == t {
				b.Backups = append(b.Backups, BranchBackup{s.Label, s.Type, s.Stop.UTC(), s.StopLSN})
			}
		}
		slices.SortFunc(b.Backups, func(x, y BranchBackup) int { return x.Stop.Compare(y.Stop) })
		if err := h.searchBranch(ctx, heads, most, &b); err != nil {
			return nil, fmt.Errorf("look through timeline %d: %w", t, err)
		}
		all = append(all, b)
	}
	return all, nil
}

// searchBranch finds what the heads tell. A segment in which the timeline begins
// has the WAL of its parent in front of the fork, restore points too.
func (h Holdings) searchBranch(ctx context.Context, heads *HeadCache, most int, b *Branch) error {
	for _, run := range slices.Backward(b.Runs) {
		first := h.SegmentSize.SegmentOf(run.From)
		if skip := run.Segments - most; skip > 0 {
			b.Unsearched += skip
			first += pg.SegmentNo(skip)
			run.Segments = most
		}
		most -= run.Segments
		if run.Segments == 0 {
			continue
		}
		m := NewMoments(h.SegmentSize, []SegmentRange{{b.Timeline, first, h.SegmentSize.SegmentOf(run.To - 1)}}, heads)
		err := m.Each(ctx, 0, m.Len(), func(_ int, head WALHead) bool {
			for _, p := range head.RestorePoints {
				if p.LSN > b.Fork {
					b.RestorePoints = append(b.RestorePoints, BranchRestorePoint{p.Name, p.LSN, p.Time.UTC()})
				}
			}
			if c := head.LastCommit; c != nil && c.After(b.LastCommit) {
				b.LastCommit = c.UTC()
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(b.RestorePoints, func(x, y BranchRestorePoint) int {
		switch {
		case x.LSN < y.LSN:
			return -1
		case x.LSN > y.LSN:
			return 1
		}
		return 0
	})
	return nil
}
