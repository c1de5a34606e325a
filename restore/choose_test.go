package restore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// TestPlanAgreesWithServer makes random clusters and targets, and compares
// what the planner says with what a server would do.
func TestPlanAgreesWithServer(t *testing.T) {
	reachable, refused := map[TargetKind]int{}, map[TargetKind]int{}
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := randomModel(rng)
		h := m.holdings()
		for range 12 {
			g := randomTarget(rng, m)
			plan, err := Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: m}}, Request{Target: g})
			note := fmt.Sprintf("seed %d, target %+v", seed, g)
			if err == nil {
				reachable[g.Kind]++
				require.NoError(t, plan.Target.normalize())
				if g.Kind != TargetXID {
					require.True(t, m.serve(plan.Backup, plan.Timeline, plan.Target), "%s: planned %s on %d", note, plan.Backup.Label, plan.Timeline)
				}
				requireWAL(t, m, plan)
				continue
			}
			if errors.Is(err, ErrNoBackup) {
				require.Empty(t, m.backups)
				continue
			}
			var u *UnreachableError
			require.ErrorAs(t, err, &u, note)
			refused[g.Kind]++
			requireRefused(t, m, h, g, note)
			requireNearest(t, m, h, u, note)
		}
	}
	for _, k := range []TargetKind{TargetEnd, TargetImmediate, TargetTime, TargetLSN, TargetXID, TargetName} {
		require.Greater(t, reachable[k], 100, k)
		require.Greater(t, refused[k], 100, k)
	}
}

// requireWAL checks that the plan's segments are there and follow each other.
func requireWAL(t *testing.T, m *model, p *Plan) {
	t.Helper()
	next := m.size.SegmentOf(p.Backup.StartLSN)
	for _, r := range p.WAL {
		require.Equal(t, next, r.First)
		for n := r.First; n <= r.Last; n++ {
			require.True(t, m.archived(r.Timeline, n))
		}
		next = r.Last + 1
	}
	require.GreaterOrEqual(t, m.size.Start(next), p.Backup.StopLSN)
	require.Equal(t, p.Stop.Segment, m.size.Name(p.WAL[len(p.WAL)-1].Timeline, next-1))
}

// requireRefused checks that no backup would have reached the target on the
// timeline asked for.
func requireRefused(t *testing.T, m *model, h repo.Holdings, g Target, note string) {
	t.Helper()
	var line pg.Timeline
	for _, tl := range h.Timelines() {
		for _, b := range m.backups {
			if h.Line(tl).Holds(b.Timeline, b.StopLSN) && (g.Timeline.number == 0 || g.Timeline.number == tl) {
				line = tl
			}
		}
	}
	for _, b := range m.backups {
		// The stop time of a backup is a bit later than the last transaction
		// in it, the stop LSN is the end of its last record: the planner is on
		// the safe side between the two.
		if g.Kind == TargetTime && !g.Time.After(b.Stop) || g.Kind == TargetLSN && g.LSN < b.StopLSN {
			continue
		}
		require.False(t, m.serve(b, line, g), "%s: %s would reach it on timeline %d", note, b.Label, line)
	}
}

// requireNearest checks that the moments offered instead can be reached.
func requireNearest(t *testing.T, m *model, h repo.Holdings, u *UnreachableError, note string) {
	t.Helper()
	for _, n := range []*Moment{u.Before, u.After} {
		if n == nil || u.Target.Kind != TargetTime {
			continue
		}
		g := Target{Kind: TargetTime, Time: n.Time, Timeline: TimelineNumber(n.Timeline)}
		_, err := Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: m}}, Request{Target: g})
		only := false // a window that is one moment: the end of a backup, and no transaction after it
		for _, w := range u.Refusals[0].Windows {
			only = only || w.Earliest.Equal(w.Latest) && w.Latest.Equal(n.Time)
		}
		require.True(t, err == nil || only, "%s: offered %v: %v", note, n, err)
	}
}

func randomTarget(rng *rand.Rand, m *model) Target {
	all := m.replay(pg.Timeline(1+rng.IntN(len(m.firstSeg))), 0, pg.MaxLSN)
	r := all[rng.IntN(len(all))]
	g := Target{Exclusive: rng.IntN(2) == 0}
	switch rng.IntN(6) {
	case 0:
		g.Kind, g.LSN = TargetLSN, r.at
		if rng.IntN(4) == 0 {
			g.LSN = r.end
		}
	case 1:
		g.Kind, g.XID = TargetXID, r.xid
		if g.XID == 0 {
			g.XID = 690 + uint32(rng.IntN(60))
		}
	case 2:
		g.Kind, g.Name, g.Exclusive = TargetName, fmt.Sprintf("p%d", rng.IntN(8)), false
	case 3:
		g.Kind, g.Exclusive = TargetImmediate, false
	case 4:
		g.Kind, g.Exclusive = TargetEnd, false
	default:
		g.Kind, g.Time = TargetTime, r.commit
		if g.Time.IsZero() {
			g.Time = epoch0.Add(time.Duration(rng.IntN(200)) * time.Second)
		}
	}
	if rng.IntN(3) == 0 {
		g.Timeline = TimelineNumber(pg.Timeline(1 + rng.IntN(3)))
	}
	return g
}
