package restore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// A model is a made-up cluster: its WAL records, and what of it is archived.
// From it come the planner's input and, independently, what a server that
// replays it would do.
type model struct {
	size      pg.SegmentSize
	records   map[pg.Timeline][]record // ascending
	histories map[pg.Timeline]pg.History
	missing   map[pg.SegmentName]bool
	lastSeg   map[pg.Timeline]pg.SegmentNo // last complete segment
	firstSeg  map[pg.Timeline]pg.SegmentNo
	backups   []repo.Summary
	mu        sync.Mutex
	reads     int
}

// record is one WAL record: the bytes [at, end).
type record struct {
	at, end pg.LSN
	commit  time.Time // zero: not the end of a transaction
	xid     uint32
	point   string
}

var epoch0 = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	modelSize  = pg.SegmentSize(1 << 20)
	recordSize = 1 << 16
)

// line is the model's own idea of the way to a timeline.
func (m *model) line(t pg.Timeline) []pg.TimelineSpan {
	if h, ok := m.histories[t]; ok {
		return h.Path()
	}
	return []pg.TimelineSpan{{Timeline: t, To: pg.MaxLSN}}
}

// SegmentHead makes the head of a segment from the records in it. A new
// timeline's first segment begins with a copy of the old one's records.
func (m *model) SegmentHead(_ context.Context, name pg.SegmentName) (repo.WALHead, error) {
	m.mu.Lock()
	m.reads++
	m.mu.Unlock()
	n, err := name.Number(m.size)
	if err != nil {
		return repo.WALHead{}, err
	}
	from, to := m.size.Start(n), m.size.Start(n+1)
	h := repo.WALHead{Name: string(name), Start: from, Complete: true}
	for _, r := range m.replay(name.Timeline(), from, to) {
		h.ValidTo = r.end
		if r.point != "" {
			h.RestorePoints = append(h.RestorePoints, repo.RestorePoint{Name: r.point, LSN: r.end, Time: r.commit})
		}
		if r.commit.IsZero() || r.point != "" {
			continue
		}
		at := r.commit
		if h.FirstCommit == nil {
			h.FirstCommit = &at
			h.MinXID, h.MaxXID = r.xid, r.xid
		}
		h.LastCommit = &at
		h.MinXID, h.MaxXID = min(h.MinXID, r.xid), max(h.MaxXID, r.xid)
		h.Commits++
	}
	return h, nil
}

// replay lists the records of a stretch on the way to timeline t.
func (m *model) replay(t pg.Timeline, from, to pg.LSN) []record {
	var rs []record
	for _, s := range m.line(t) {
		for _, r := range m.records[s.Timeline] {
			if r.at >= from && r.at < to && r.at >= s.From && r.at < s.To {
				rs = append(rs, r)
			}
		}
	}
	return rs
}

func (m *model) archived(t pg.Timeline, n pg.SegmentNo) bool {
	first, ok := m.firstSeg[t]
	return ok && n >= first && n <= m.lastSeg[t] && !m.missing[m.size.Name(t, n)]
}

func (m *model) holdings() repo.Holdings {
	h := repo.Holdings{SystemID: 7, SegmentSize: m.size, Backups: m.backups, Histories: m.histories, Runs: map[pg.Timeline][]repo.Run{}}
	for t, first := range m.firstSeg {
		for n := first; n <= m.lastSeg[t]; n++ {
			if !m.archived(t, n) {
				continue
			}
			rs := h.Runs[t]
			if k := len(rs) - 1; k >= 0 && rs[k].To == m.size.Start(n) {
				rs[k].To = m.size.Start(n + 1)
				rs[k].Segments++
			} else {
				h.Runs[t] = append(rs, repo.Run{Timeline: t, From: m.size.Start(n), To: m.size.Start(n + 1), Segments: 1})
			}
		}
	}
	return h
}

// serve is the server: it starts from a backup, aims for timeline t, and says
// whether it reaches the target. Written after xlogrecovery.c.
func (m *model) serve(b repo.Summary, t pg.Timeline, g Target) bool {
	consistent := false
	line := m.line(t)
	on := false
	for _, s := range line {
		on = on || s.Timeline == b.Timeline && s.From <= b.StartLSN && b.StopLSN <= s.To
	}
	if !on {
		return false // "requested timeline is not a child of this server's history"
	}
	for n := m.size.SegmentOf(b.StartLSN); ; n++ {
		// The newest timeline of the line that begins at or before this
		// segment has it, or else nobody.
		var file pg.Timeline
		for _, s := range line {
			if m.size.SegmentOf(s.From) <= n {
				file = s.Timeline
			}
		}
		if !m.archived(file, n) {
			return g.Kind == TargetEnd && consistent
		}
		for _, r := range m.replay(file, max(m.size.Start(n), b.StartLSN), m.size.Start(n+1)) {
			consistent = consistent || r.at >= b.StopLSN
			ends := !r.commit.IsZero() && r.point == ""
			switch {
			case g.Kind == TargetImmediate && consistent:
				return true
			case g.Kind == TargetLSN && r.at >= g.LSN:
				return consistent || !g.Exclusive && r.end >= b.StopLSN
			case g.Kind == TargetTime && ends && (r.commit.After(g.Time) || g.Exclusive && r.commit.Equal(g.Time)):
				return consistent
			case g.Kind == TargetXID && ends && r.xid == g.XID:
				return consistent || !g.Exclusive && r.end >= b.StopLSN
			case g.Kind == TargetName && r.point == g.Name:
				return r.end >= b.StopLSN
			}
			consistent = consistent || r.end >= b.StopLSN
		}
	}
}

// randomModel makes a cluster with a few timelines, backups, holes, quiet
// segments and restore points.
func randomModel(rng *rand.Rand) *model {
	m := &model{
		size:    modelSize,
		records: map[pg.Timeline][]record{}, histories: map[pg.Timeline]pg.History{},
		missing: map[pg.SegmentName]bool{}, lastSeg: map[pg.Timeline]pg.SegmentNo{}, firstSeg: map[pg.Timeline]pg.SegmentNo{},
	}
	clock, xid := epoch0, uint32(700)
	grow := func(t pg.Timeline, from, to pg.LSN) {
		for at := from; at < to; at += recordSize {
			seg := m.size.SegmentOf(at)
			if seg%3 == 2 && at != m.size.Start(seg) { // a switch: padding to the end
				continue
			}
			r := record{at: at, end: at + recordSize}
			clock = clock.Add(time.Duration(1+rng.IntN(1000)) * time.Millisecond)
			switch k := rng.IntN(20); {
			case k < 8 && seg%4 != 1:
				xid++
				r.commit, r.xid = clock, xid
			case k == 8:
				r.point, r.commit = fmt.Sprintf("p%d", rng.IntN(6)), clock
			}
			m.records[t] = append(m.records[t], r)
		}
	}
	end := m.size.Start(pg.SegmentNo(8 + rng.IntN(8)))
	grow(1, m.size.Start(1), end)
	m.firstSeg[1], m.lastSeg[1] = 1, m.size.SegmentOf(end)-1
	for t := pg.Timeline(2); t < pg.Timeline(2+rng.IntN(3)); t++ {
		parents := slices.Sorted(maps.Keys(m.firstSeg))
		parent := parents[rng.IntN(len(parents))]
		lo := m.size.Start(m.firstSeg[parent] + 1)
		hi := m.size.Start(m.lastSeg[parent] + 1)
		if hi <= lo {
			continue
		}
		at := lo + pg.LSN(rng.IntN(int(hi-lo)/recordSize))*recordSize
		h := pg.History{Timeline: t}
		for _, s := range m.line(parent) {
			if s.From < at {
				h.Entries = append(h.Entries, pg.HistoryEntry{Timeline: s.Timeline, End: min(s.To, at)})
			}
		}
		m.histories[t] = h
		stop := m.size.Start(m.size.SegmentOf(at) + 1 + pg.SegmentNo(rng.IntN(6)))
		grow(t, at, stop)
		m.firstSeg[t], m.lastSeg[t] = m.size.SegmentOf(at), m.size.SegmentOf(stop)-1
		if rng.IntN(2) == 0 { // the old primary stopped here, its last segment incomplete
			m.lastSeg[parent] = max(m.firstSeg[parent], m.size.SegmentOf(at)-1)
		}
	}
	for range rng.IntN(4) {
		ts := slices.Sorted(maps.Keys(m.firstSeg))
		t := ts[rng.IntN(len(ts))]
		m.missing[m.size.Name(t, m.firstSeg[t]+pg.SegmentNo(rng.IntN(12)))] = true
	}
	for i := range 1 + rng.IntN(4) {
		m.addBackup(rng, i)
	}
	return m
}

// addBackup takes a backup on a random timeline, on the part that is its own.
func (m *model) addBackup(rng *rand.Rand, i int) {
	ts := slices.Sorted(maps.Keys(m.firstSeg))
	t := ts[rng.IntN(len(ts))]
	rs := m.records[t]
	if len(rs) < 4 {
		return
	}
	a := rng.IntN(len(rs) - 2)
	z := min(a+1+rng.IntN(20), len(rs)-1)
	b := repo.Summary{
		Label: repo.Label(fmt.Sprintf("20261122-0100%02dF", i)), Type: repo.Full, Timeline: t,
		StartLSN: rs[a].at, StopLSN: rs[z].end, Start: epoch0, Stop: epoch0, PGVersion: 150000, Bytes: 1 << 30, Files: 1000,
	}
	for _, r := range m.replay(t, 0, rs[z].end) {
		if !r.commit.IsZero() {
			b.Stop = r.commit
		}
	}
	m.backups = append(m.backups, b)
}
