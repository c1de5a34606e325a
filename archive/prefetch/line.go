package prefetch

import (
	"github.com/walkeep/walkeep/pg"
)

// following are the n segments that recovery will most likely ask for after
// the one that it asked for, in order: those of the same timeline, and, where
// a history says that the path leaves it, those of the next one. A wrong guess
// costs a fetch.
//
// The server asks for a segment on the newest timeline of its path that begins
// in it or before it (XLogFileReadAnyTLI). Which timeline it aims at is not
// known here, only what it asked for: it is taken to be the newest one whose
// path agrees with that.
func following(asked pg.SegmentName, size pg.SegmentSize, histories []pg.History, n int) []pg.SegmentName {
	at, err := asked.Number(size)
	if err != nil {
		return nil
	}
	path := pg.History{Timeline: asked.Timeline()}.Path()
	newest := asked.Timeline()
	for _, h := range histories {
		if p := h.Path(); h.Timeline > newest && timelineOf(p, size, at) == asked.Timeline() {
			path, newest = p, h.Timeline
		}
	}
	names := make([]pg.SegmentName, 0, n)
	for i := at + 1; len(names) < n; i++ {
		names = append(names, size.Name(timelineOf(path, size, i), i))
	}
	return names
}

// timelineOf is the timeline of a path on which the server asks for segment n.
func timelineOf(path []pg.TimelineSpan, size pg.SegmentSize, n pg.SegmentNo) pg.Timeline {
	var t pg.Timeline
	for _, s := range path {
		if size.SegmentOf(s.From) <= n {
			t = s.Timeline
		}
	}
	return t
}

// backwards reports whether the second segment lies before the first: pg_rewind
// reads so, and then nothing that follows is wanted.
func backwards(before, now pg.SegmentName, size pg.SegmentSize) bool {
	a, err1 := before.Number(size)
	b, err2 := now.Number(size)
	return err1 == nil && err2 == nil && b < a
}
