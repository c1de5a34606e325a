package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/walkeep"
)

func TestMain(m *testing.M) {
	code := m.Run()
	walkeep.Clean()
	os.Exit(code)
}

// TestFailovers is a short `make chaos`: two failovers in each mode, those with
// most against them. No gap, and no row that the surviving primary has is
// missing in the clone.
func TestFailovers(t *testing.T) {
	short := func(p roundPlan) roundPlan {
		p.before, p.after = 3*time.Second, time.Second
		return p
	}
	for name, o := range map[string]options{
		"on, with agents": {archiveMode: "on", agent: true, plans: []roundPlan{
			short(roundPlan{main: powerFailure, side: []sideFault{slowArchiver, dirAway}, rewind: false}),
			short(roundPlan{main: cutLeader, side: []sideFault{slowArchiver, agentsKilled}, rewind: true}),
		}},
		"always": {archiveMode: "always", plans: []roundPlan{
			short(roundPlan{main: killBoth, side: []sideFault{slowArchiver, s3Down}, rewind: true}),
			short(roundPlan{main: switchover, side: []sideFault{slowArchiver}, rewind: false}),
		}},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: each keeps three servers busy
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
			defer cancel()
			o.tool, o.seed, o.clients, o.pause, o.log = "walkeep", 1, 3, 20*time.Millisecond, t.Output()
			res, err := runWorld(ctx, o)
			writeTable(t.Output(), res)
			require.NoError(t, err)
			require.Len(t, res.Rounds, len(o.plans))
			for _, r := range append(res.Rounds, res.Final...) {
				require.Zero(t, r.Missing, "segments missing, round %d: %v", r.Round, r.Notes)
				require.Zero(t, r.Lost, "rows lost, round %d", r.Round)
				require.NotZero(t, r.Rows)
			}
		})
	}
}

// TestPlansAreReproducible: the seed decides all that is ours to decide.
func TestPlansAreReproducible(t *testing.T) {
	require.Equal(t, planRounds(7, 20, true), planRounds(7, 20, true))
	seen := map[mainFault]int{}
	for _, p := range planRounds(7, 20, true) {
		seen[p.main]++
	}
	require.Len(t, seen, 5)
}
