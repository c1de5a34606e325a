package archive_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

const mib = 1 << 20

// world is a cluster's history, small enough to judge by brute force: segments
// of 1 MiB, numbered from 0.
type world struct {
	h         repo.Holdings
	have      map[pg.Timeline]map[pg.SegmentNo]bool
	histories map[pg.Timeline]pg.History
	now       archive.Position
}

func (w *world) String() string {
	return fmt.Sprintf("have %v\nhistories %v\nbackups %v\nnow %+v", w.have, w.histories, w.h.Backups, w.now)
}

func archived(t pg.Timeline, first, last pg.SegmentNo) repo.Run {
	return repo.Run{Timeline: t, From: pg.LSN(first * mib), To: pg.LSN((last + 1) * mib), Segments: int(last-first) + 1}
}

// randomWorld makes up to four timelines, each leaving an older one somewhere.
func randomWorld(r *rand.Rand) *world {
	w := &world{have: map[pg.Timeline]map[pg.SegmentNo]bool{}, histories: map[pg.Timeline]pg.History{}}
	w.h = repo.Holdings{SystemID: cluster, SegmentSize: mib, Runs: map[pg.Timeline][]repo.Run{}, Histories: map[pg.Timeline]pg.History{}}
	ends := map[pg.Timeline]pg.LSN{1: pg.LSN(r.IntN(20)+3) * mib}
	timelines := pg.Timeline(r.IntN(4) + 1)
	for t := pg.Timeline(2); t <= timelines; t++ {
		parent := pg.Timeline(r.IntN(int(t-1)) + 1)
		var entries []pg.HistoryEntry
		begin := pg.LSN(0)
		if p, ok := w.histories[parent]; ok {
			entries = slices.Clone(p.Entries)
			begin = entries[len(entries)-1].End
		}
		// Now and then exactly at a border.
		at := begin + pg.LSN(r.IntN(int((ends[parent]-begin)/1000)+1))*1000
		if r.IntN(4) == 0 {
			at = at / mib * mib
		}
		w.histories[t] = pg.History{Timeline: t, Entries: append(entries, pg.HistoryEntry{Timeline: parent, End: max(at, begin+8)})}
		ends[t] = at + pg.LSN(r.IntN(8)+1)*mib
		if r.IntN(6) > 0 {
			w.h.Histories[t] = w.histories[t]
		}
	}
	for t := pg.Timeline(1); t <= timelines; t++ {
		w.have[t] = map[pg.SegmentNo]bool{}
		from := pg.LSN(0)
		if h, ok := w.histories[t]; ok {
			from = h.Entries[len(h.Entries)-1].End
		}
		for n := pg.SegmentNo(from / mib); n < pg.SegmentNo(ends[t]/mib); n++ {
			if r.IntN(5) == 0 {
				continue
			}
			w.have[t][n] = true
			if runs := w.h.Runs[t]; len(runs) > 0 && runs[len(runs)-1].To == pg.LSN(n*mib) {
				runs[len(runs)-1].To += mib
				runs[len(runs)-1].Segments++
			} else {
				w.h.Runs[t] = append(runs, archived(t, n, n))
			}
		}
		for range r.IntN(3) {
			start := from + pg.LSN(r.IntN(int((ends[t]-from)/100)+1))*100
			stop := start + pg.LSN(r.IntN(2*mib)) + 8
			if stop <= ends[t] {
				w.h.Backups = append(w.h.Backups, repo.Summary{Label: repo.Label(fmt.Sprintf("b%d", len(w.h.Backups))), Timeline: t, StartLSN: start, StopLSN: stop})
			}
		}
	}
	t := pg.Timeline(r.IntN(int(timelines)) + 1)
	w.now = archive.Position{Timeline: t, LSN: ends[t] + pg.LSN(r.IntN(3*mib))}
	return w
}

// at is the timeline that recovery towards target reads segment n from: the
// newest of its history that begins at or before the segment's end, byte by
// byte from the server's rule.
func (w *world) at(target pg.Timeline, n pg.SegmentNo) pg.Timeline {
	h := w.histories[target]
	t := target
	for i := len(h.Entries) - 1; i >= 0; i-- {
		if pg.SegmentNo(h.Entries[i].End/mib) <= n {
			return t
		}
		t = h.Entries[i].Timeline
	}
	return t
}

// needed by brute force: segment by segment.
func (w *world) needed() map[pg.Timeline]map[pg.SegmentNo]bool {
	need := map[pg.Timeline]map[pg.SegmentNo]bool{}
	add := func(target pg.Timeline, from, to pg.LSN) { // bytes [from, to)
		for n := pg.SegmentNo(from / mib); pg.LSN(n*mib) < to; n++ {
			t := w.at(target, n)
			if need[t] == nil {
				need[t] = map[pg.SegmentNo]bool{}
			}
			need[t][n] = true
		}
	}
	onLine := func(b repo.Summary) bool {
		return b.Timeline == w.now.Timeline && len(w.histories[b.Timeline].Entries) == 0 ||
			(&pg.History{Timeline: w.now.Timeline, Entries: w.histories[w.now.Timeline].Entries}).Contains(b.Timeline, b.StopLSN-1)
	}
	end := w.now.LSN
	for n := range w.have[w.now.Timeline] {
		end = max(end, pg.LSN((n+1)*mib))
	}
	end = end / mib * mib // what is being written is not there yet
	from := pg.MaxLSN
	for _, b := range w.h.Backups {
		if onLine(b) {
			from = min(from, b.StartLSN)
			add(w.now.Timeline, b.StartLSN, b.StopLSN)
		} else {
			add(b.Timeline, b.StartLSN, b.StopLSN)
		}
	}
	if from == pg.MaxLSN { // the first segment of the line that is there
		for n := pg.SegmentNo(0); n < 60; n++ {
			if w.have[w.at(w.now.Timeline, n)][n] {
				from = pg.LSN(n * mib)
				break
			}
		}
	}
	if from != pg.MaxLSN {
		add(w.now.Timeline, from, end)
	}
	return need
}

func TestCoverAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	gaps := 0
	for i := range 20000 {
		w := randomWorld(r)
		c := archive.Cover(w.h, w.now, w.histories)
		want := w.needed()
		got := map[pg.Timeline]map[pg.SegmentNo]bool{}
		missing := map[pg.Timeline]map[pg.SegmentNo]bool{}
		for _, tc := range c.Timelines {
			for _, s := range tc.Needed {
				for n := s.First; n <= s.Last; n++ {
					if got[tc.Timeline] == nil {
						got[tc.Timeline] = map[pg.SegmentNo]bool{}
					}
					got[tc.Timeline][n] = true
				}
			}
			for _, s := range append(slices.Clone(tc.Gaps), tc.Behind...) {
				for n := s.First; n <= s.Last; n++ {
					if missing[tc.Timeline] == nil {
						missing[tc.Timeline] = map[pg.SegmentNo]bool{}
					}
					missing[tc.Timeline][n] = true
				}
			}
			for _, s := range tc.Behind {
				gaps++
				for n := range w.have[tc.Timeline] {
					require.Less(t, n, s.First, "nothing lies behind what is behind\n%s", w)
				}
			}
		}
		require.Equal(t, want, got, "world %d\n%s", i, w)
		for tl, ns := range want {
			for n := range ns {
				require.Equal(t, !w.have[tl][n], missing[tl][n], "world %d, segment %d of %d\n%s", i, n, tl, w)
			}
		}
		all := 0
		for _, m := range c.Missing {
			all += m.Count()
		}
		for _, ns := range missing {
			all -= len(ns)
		}
		require.Zero(t, all)
	}
	require.Greater(t, gaps, 100)
}

// The hole that a failover leaves: the old primary's last segments.
func TestCoverFailover(t *testing.T) {
	h := repo.Holdings{
		SystemID: cluster, SegmentSize: mib,
		Runs: map[pg.Timeline][]repo.Run{1: {archived(1, 2, 4)}, 2: {archived(2, 7, 9)}},
		Histories: map[pg.Timeline]pg.History{
			2: {Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, End: 7*mib + 5000}}},
		},
		Backups:  []repo.Summary{{Label: "b", Timeline: 1, StartLSN: 2*mib + 40, StopLSN: 3 * mib}},
		Partials: []repo.Partial{{Segment: "000000010000000000000007", ValidTo: 7*mib + 4000}, {Segment: "000000010000000000000007", ValidTo: 7*mib + 5000}},
	}
	c := archive.Cover(h, archive.Position{Timeline: 2, LSN: 12*mib + 1}, nil)
	require.Equal(t, []archive.Gap{{
		Timeline: 1, First: "000000010000000000000005", Last: "000000010000000000000006", From: 5 * mib, To: 7 * mib, Segments: 2,
	}}, c.Gaps())
	behind := c.Behind()
	require.Len(t, behind, 1)
	require.Equal(t, 2, behind[0].Segments)
	require.Empty(t, c.Branches)
	require.Equal(t, []repo.Partial{{Segment: "000000010000000000000007", ValidTo: 7*mib + 5000}}, c.Timelines[0].Partials)
	require.Equal(t, pg.Timeline(1), c.Timelines[1].Parent)

	// The history file is in another repository only.
	histories := h.Histories
	h.Histories = nil
	c = archive.Cover(h, archive.Position{Timeline: 2, LSN: 12 * mib}, histories)
	require.Equal(t, []pg.Timeline{2}, c.Histories)
	require.Len(t, c.Gaps(), 1)

	// Nothing at all.
	c = archive.Cover(repo.Holdings{SegmentSize: mib}, archive.Position{}, nil)
	require.Empty(t, c.Missing)
	require.Empty(t, c.Timelines)
}

func TestBranches(t *testing.T) {
	history := map[pg.Timeline]pg.History{
		2: {Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, End: 5*mib + 100}}},
		3: {Timeline: 3, Entries: []pg.HistoryEntry{{Timeline: 1, End: 5*mib + 100}, {Timeline: 2, End: 8 * mib}}},
	}
	h := repo.Holdings{SegmentSize: mib, Histories: history, Runs: map[pg.Timeline][]repo.Run{1: {archived(1, 2, 5)}, 2: {archived(2, 5, 7)}, 3: {archived(3, 8, 9)}}}
	require.Empty(t, archive.Branches(h), "the segment of the switch proves nothing, nor one that ends there")

	h.Runs[1] = []repo.Run{archived(1, 2, 6)}
	require.Equal(t, []archive.Branch{{Timeline: 1, Child: 2, At: 5*mib + 100, To: 7 * mib}}, archive.Branches(h))
	h.Runs[1] = []repo.Run{archived(1, 2, 4)}
	h.Partials = []repo.Partial{{Segment: "000000020000000000000009", ValidTo: 9*mib + 500}}
	require.Equal(t, []archive.Branch{{Timeline: 2, Child: 3, At: 8 * mib, To: 9*mib + 500}}, archive.Branches(h))
	h.Partials = nil
	h.Conflicts = []repo.Conflict{{Name: repo.SegmentFile("000000010000000000000007").Conflicting("x")}}
	require.Equal(t, []archive.Branch{{Timeline: 1, Child: 2, At: 5*mib + 100, To: 8 * mib}}, archive.Branches(h))
}
