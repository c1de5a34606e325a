package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

const testSize pg.SegmentSize = 1 << 20

var testTime = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

// In the model segment n is written in hour n after testTime.
func segmentTime(n pg.SegmentNo) time.Time { return testTime.Add(time.Duration(n) * time.Hour) }

// history makes the history of a timeline that left its parents at the ends of
// these segments.
func history(t *testing.T, tl pg.Timeline, switches map[pg.Timeline]pg.SegmentNo) pg.History {
	text := ""
	for parent := pg.Timeline(1); parent < tl; parent++ {
		if n, ok := switches[parent]; ok {
			text += fmt.Sprintf("%d\t%s\tno recovery target specified\n", parent, testSize.Start(n)+0x80000)
		}
	}
	h, err := pg.ParseHistory(tl, []byte(text))
	require.NoError(t, err)
	return h
}

// randomState makes a repository: one epoch, a failover or a branch now and
// then, full, differential and incremental backups, gaps.
func randomState(t *testing.T, rng *rand.Rand) State {
	h := repo.Holdings{SystemID: 7001, SegmentSize: testSize, Runs: map[pg.Timeline][]repo.Run{}, Histories: map[pg.Timeline]pg.History{}}
	tl, at := pg.Timeline(1), pg.SegmentNo(1)
	switches := map[pg.Timeline]pg.SegmentNo{}
	var latest []repo.Summary // on the way to here
	add := func(from, to pg.SegmentNo) {
		if from <= to {
			runs := h.Runs[tl]
			if n := len(runs); n > 0 && runs[n-1].To == testSize.Start(from) {
				runs[n-1].To = testSize.Start(to + 1)
				runs[n-1].Segments += int(to-from) + 1
				return
			}
			h.Runs[tl] = append(runs, repo.Run{Timeline: tl, From: testSize.Start(from), To: testSize.Start(to + 1), Segments: int(to-from) + 1})
		}
	}
	for range 5 + rng.IntN(30) {
		switch k := rng.IntN(20); {
		case k < 10: // a backup
			typ := repo.Full
			if len(latest) > 0 {
				typ = []repo.BackupType{repo.Full, repo.Differential, repo.Incremental, repo.Incremental}[rng.IntN(4)]
			}
			s := repo.Summary{
				Type: typ, SystemID: 7001, Timeline: tl, SegmentSize: testSize, StoredBytes: 1 << 20,
				StartLSN: testSize.Start(at) + 0x28, StopLSN: testSize.Start(at+pg.SegmentNo(rng.IntN(2))) + 0x100000 - 0x100,
				Start: segmentTime(at), Stop: segmentTime(at).Add(time.Duration(1+rng.IntN(50)) * time.Minute),
			}
			if typ != repo.Full {
				parent := latest[len(latest)-1]
				if typ == repo.Differential {
					i := slices.IndexFunc(latest, func(b repo.Summary) bool { return b.Label == parent.Label.Full() })
					if i < 0 {
						continue
					}
					parent = latest[i]
				}
				s.Parent = parent.Label
				s.References = []repo.Label{parent.Label}
				for _, r := range parent.References {
					if !slices.Contains(s.References, r) && rng.IntN(3) > 0 {
						s.References = append(s.References, r)
					}
				}
			}
			label, err := repo.NewLabel(typ, s.Parent, s.Start)
			require.NoError(t, err)
			if slices.ContainsFunc(h.Backups, func(b repo.Summary) bool { return b.Label == label }) {
				continue
			}
			s.Label = label
			h.Backups = append(h.Backups, s)
			latest = append(latest, s)
			add(at, at+1)
			at += 2
		case k < 17: // WAL
			n := pg.SegmentNo(1 + rng.IntN(30))
			add(at, at+n-1)
			at += n
		case k < 18: // a gap
			at += pg.SegmentNo(1 + rng.IntN(3))
		default: // a new timeline, now or from an earlier moment
			if rng.IntN(3) == 0 && at > 20 {
				at -= pg.SegmentNo(rng.IntN(15))
				latest = slices.DeleteFunc(latest, func(b repo.Summary) bool { return b.StopLSN > testSize.Start(at) })
			}
			for parent, n := range switches {
				if n > at {
					delete(switches, parent)
				}
			}
			switches[tl] = at
			tl = slices.Max(append(h.Timelines(), tl)) + 1
			if rng.IntN(5) > 0 {
				h.Histories[tl] = history(t, tl, switches)
			}
			add(at, at)
			at++
		}
	}
	return State{Epochs: []EpochState{{Holdings: h}}}
}

func randomPolicy(rng *rand.Rand) Policy {
	p := Policy{}
	some := func(n int) int {
		if rng.IntN(2) == 0 {
			return 0
		}
		return 1 + rng.IntN(n)
	}
	p.Full = some(5)
	if p.Full > 0 && rng.IntN(2) == 0 {
		p.FullByTime = true
	}
	p.Differential = some(4)
	if rng.IntN(3) == 0 {
		p.Keep = Periods{Daily: some(5), Weekly: some(3), Monthly: some(3), Yearly: some(2)}
	}
	if rng.IntN(4) == 0 {
		p.WAL = 1 + rng.IntN(3)
		p.WALType = []repo.BackupType{"", repo.Full, repo.Differential, repo.Incremental}[rng.IntN(4)]
	}
	return p
}

// after is what is there when a plan was carried out.
func after(s State, p Plan) State {
	out := State{Uses: s.Uses}
	for i, e := range s.Epochs {
		h := e.Holdings
		h.Backups, h.Runs = nil, map[pg.Timeline][]repo.Run{}
		for _, b := range e.Holdings.Backups {
			if keeps(p, b.Label) {
				h.Backups = append(h.Backups, b)
			}
		}
		for _, w := range p.Epochs[i].WAL {
			if !w.Keep {
				continue
			}
			runs := h.Runs[w.Timeline]
			run := repo.Run{Timeline: w.Timeline, From: testSize.Start(w.from), To: testSize.Start(w.to + 1), Segments: w.Segments}
			if n := len(runs); n > 0 && runs[n-1].To == run.From {
				runs[n-1].To, runs[n-1].Segments = run.To, runs[n-1].Segments+run.Segments
			} else {
				runs = append(runs, run)
			}
			h.Runs[w.Timeline] = runs
		}
		e.Holdings = h
		out.Epochs = append(out.Epochs, e)
	}
	return out
}

func keeps(p Plan, l repo.Label) bool {
	return slices.ContainsFunc(p.Backups, func(b BackupDecision) bool { return b.Label == l && b.Keep })
}

// reachable are the moments that can be restored to: the segments behind each
// usable backup, per line.
func reachable(h repo.Holdings, use func(repo.Summary) bool) map[pg.SegmentName]bool {
	all := map[pg.SegmentName]bool{}
	for _, t := range h.Timelines() {
		line := h.Line(t)
		for _, b := range h.Backups {
			if !use(b) || !line.Holds(b.Timeline, b.StopLSN) {
				continue
			}
			r := h.Reach(line, b.StartLSN)
			if r.End < b.StopLSN {
				continue
			}
			for _, s := range r.Ranges {
				for n := max(s.First, testSize.SegmentOf(b.StopLSN)); n <= s.Last; n++ {
					all[testSize.Name(s.Timeline, n)] = true
				}
			}
		}
	}
	return all
}

func TestPlanProperties(t *testing.T) {
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 9))
		s := randomState(t, rng)
		h := s.Epochs[0].Holdings
		for range rng.IntN(3) {
			if len(h.Backups) > 0 {
				l := h.Backups[rng.IntN(len(h.Backups))].Label
				if rng.IntN(2) == 0 {
					s.Epochs[0].Pins = append(s.Epochs[0].Pins, repo.Pin{Label: l})
				} else {
					s.Uses = append(s.Uses, repo.Use{Label: l, Holder: "x"})
				}
			}
		}
		policy := randomPolicy(rng)
		req := Request{Policy: policy, At: segmentTime(pg.SegmentNo(rng.IntN(600)))}
		p, err := MakePlan(s, req)
		require.NoError(t, err)
		name := fmt.Sprintf("seed %d, %s", seed, policy)
		requireWhole(t, name, s, p)
		requireWindow(t, name, s, p)
		requireMonotone(t, name, s, req, p)

		again, err := MakePlan(after(s, p), req)
		require.NoError(t, err)
		for _, b := range again.Backups {
			require.True(t, b.Keep, "%s: a second run removes %s: %v", name, b.Label, b.Reasons)
		}
		for _, w := range again.Epochs[0].WAL {
			require.True(t, w.Keep, "%s: a second run removes %s", name, w.First)
		}
	}
}

// requireWhole: what stays can be restored as before, and builds on nothing
// that went; each segment was decided about once.
func requireWhole(t *testing.T, name string, s State, p Plan) {
	h, left := s.Epochs[0].Holdings, after(s, p).Epochs[0].Holdings
	kept := 0
	for _, b := range h.Backups {
		if !keeps(p, b.Label) {
			continue
		}
		kept++
		for _, r := range append(slices.Clone(b.References), b.Parent, b.Label.Full()) {
			if r != "" {
				require.True(t, keeps(p, r), "%s: %s needs %s", name, b.Label, r)
			}
		}
		if unusable(h, b) == "" {
			require.Empty(t, unusable(left, b), "%s: %s lost its WAL", name, b.Label)
		}
	}
	require.True(t, kept > 0 || len(h.Backups) == 0, name)
	if len(reachable(h, func(repo.Summary) bool { return true })) > 0 {
		require.NotEmpty(t, reachable(left, func(repo.Summary) bool { return true }), name)
	}
	for tl, runs := range h.Runs {
		total, decided := 0, 0
		for _, r := range runs {
			total += r.Segments
		}
		for _, w := range p.Epochs[0].WAL {
			if w.Timeline == tl {
				decided += w.Segments
			}
		}
		require.Equal(t, total, decided, name)
	}
}

// requireWindow: what the policy promises could be restored to before can be
// after.
func requireWindow(t *testing.T, name string, s State, p Plan) {
	if p.Policy.WAL > 0 || p.Policy.Full == 0 && !p.Policy.Keep.IsZero() {
		return // promises less
	}
	h, left := s.Epochs[0].Holdings, after(s, p).Epochs[0].Holdings
	all := func(repo.Summary) bool { return true }
	now := reachable(left, all)
	// The oldest full that the full rule keeps begins the window.
	var oldest *BackupDecision
	for i, b := range p.Backups {
		if b.Keep && b.Type == repo.Full && promises(b.Reasons) {
			oldest = &p.Backups[i]
			break
		}
	}
	if oldest == nil {
		return
	}
	for n := range reachable(h, func(b repo.Summary) bool { return keeps(p, b.Label) && !b.Stop.Before(oldest.Stop) }) {
		require.True(t, now[n], "%s: %s could be restored to", name, n)
	}
	if !p.Policy.FullByTime {
		return
	}
	limit := p.At.Add(-time.Duration(p.Policy.Full) * 24 * time.Hour)
	// On the line of the newest backup; a branch may have lost its backups.
	if len(h.Timelines()) > 1 {
		return
	}
	for n := range reachable(h, all) {
		no, err := n.Number(testSize)
		require.NoError(t, err)
		if !segmentTime(no).Before(limit) && p.Policy.Differential == 0 {
			require.True(t, now[n], "%s: %s at %s is in the promised time", name, n, segmentTime(no))
		}
	}
}

func promises(reasons []string) bool {
	return slices.ContainsFunc(reasons, func(r string) bool {
		for _, prefix := range []string{"full backup ", "younger than ", "the newest one older ", "no retention of"} {
			if len(r) > len(prefix) && r[:len(prefix)] == prefix {
				return true
			}
		}
		return false
	})
}

// requireMonotone: who asks for more keeps more; time only takes away.
func requireMonotone(t *testing.T, name string, s State, req Request, p Plan) {
	superset := func(more Plan, why string) {
		for _, b := range p.Backups {
			if b.Keep {
				require.True(t, keeps(more, b.Label), "%s: %s: %s", name, why, b.Label)
			}
		}
	}
	plan := func(change func(*Request, *State)) Plan {
		r, st := req, s
		st.Epochs = slices.Clone(s.Epochs)
		change(&r, &st)
		q, err := MakePlan(st, r)
		require.NoError(t, err)
		return q
	}
	if req.Policy.Full > 0 {
		superset(plan(func(r *Request, _ *State) { r.Policy.Full++ }), "one full more")
	}
	if req.Policy.Differential > 0 {
		superset(plan(func(r *Request, _ *State) { r.Policy.Differential++ }), "one differential more")
	}
	superset(plan(func(r *Request, _ *State) {
		r.Policy.Full = 0
		r.Policy.FullByTime = false
		r.Policy.Keep = Periods{}
		r.Policy.Differential = 0
	}), "no retention")
	if !req.Policy.Keep.IsZero() {
		superset(plan(func(r *Request, _ *State) { r.Policy.Keep.Daily++ }), "one day more")
	}
	superset(plan(func(r *Request, _ *State) { r.At = r.At.Add(-50 * time.Hour) }), "earlier")
	for _, b := range s.Epochs[0].Holdings.Backups {
		superset(plan(func(_ *Request, st *State) {
			st.Epochs[0].Pins = append(slices.Clone(st.Epochs[0].Pins), repo.Pin{Label: b.Label})
		}), "a pin more")
	}
}
