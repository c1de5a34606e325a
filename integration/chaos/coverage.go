package main

import (
	"slices"

	"github.com/walkeep/walkeep/pg"
)

// holding is the set of complete segments that one repository has.
type holding map[pg.Timeline]map[pg.SegmentNo]bool

func (h holding) add(t pg.Timeline, n pg.SegmentNo) {
	if h[t] == nil {
		h[t] = map[pg.SegmentNo]bool{}
	}
	h[t][n] = true
}

// run is consecutive segments of one timeline.
type run struct {
	Timeline pg.Timeline  `json:"timeline"`
	First    pg.SegmentNo `json:"first"`
	Last     pg.SegmentNo `json:"last"`
}

// runs are the holding as runs, by timeline and number.
func (h holding) runs() (out []run) {
	var timelines []pg.Timeline
	for t := range h {
		timelines = append(timelines, t)
	}
	slices.Sort(timelines)
	for _, t := range timelines {
		var numbers []pg.SegmentNo
		for n := range h[t] {
			numbers = append(numbers, n)
		}
		slices.Sort(numbers)
		for _, n := range numbers {
			out = extend(out, t, n)
		}
	}
	return out
}

func extend(runs []run, t pg.Timeline, n pg.SegmentNo) []run {
	if k := len(runs); k > 0 && runs[k-1].Timeline == t && runs[k-1].Last+1 == n {
		runs[k-1].Last = n
		return runs
	}
	return append(runs, run{t, n, n})
}

// needed is what recovery reads on the way along the history from an LSN to an
// LSN on the last timeline. The segment in which a timeline forks is read under
// the new timeline's name.
func needed(h pg.History, size pg.SegmentSize, from, to pg.LSN) (out []run) {
	for _, s := range h.Path() {
		first := max(s.From, from)
		last := min(s.To, to)
		if first >= last {
			continue
		}
		a, b := size.SegmentOf(first), size.SegmentOf(last-1)
		if s.To != pg.MaxLSN {
			fork := size.SegmentOf(s.To) // the new timeline has this one
			if fork == 0 || fork <= a {
				continue
			}
			b = min(b, fork-1)
		}
		out = append(out, run{s.Timeline, a, b})
	}
	return out
}

// missing are the needed segments that are not held.
func (h holding) missing(need []run) (out []run) {
	for _, r := range need {
		for n := r.First; n <= r.Last; n++ {
			if !h[r.Timeline][n] {
				out = extend(out, r.Timeline, n)
			}
		}
	}
	return out
}

func segments(runs []run) (n int) {
	for _, r := range runs {
		n += int(r.Last-r.First) + 1
	}
	return n
}
