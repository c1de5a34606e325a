package pg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MaxLSN is beyond every WAL position: the end of a timeline that nothing has
// forked from.
const MaxLSN LSN = math.MaxUint64

// ErrBadHistory: the bytes are not a timeline history file.
var ErrBadHistory = errors.New("not a valid timeline history file")

// HistoryEntry is one line of a history file: the path follows Timeline up to,
// not including, the byte at End, and continues on the next entry's timeline.
type HistoryEntry struct {
	Timeline Timeline
	End      LSN    // switch point
	Reason   string // free text of the server, may be empty
}

// History is the ancestry of one timeline, as the server's history files tell
// it (timeline.c). Timeline 1 has no file and no entries.
type History struct {
	Timeline Timeline
	Entries  []HistoryEntry // oldest ancestor first
}

// TimelineSpan is the part of a path that lies on one timeline: the bytes in
// [From, To).
type TimelineSpan struct {
	Timeline Timeline
	From, To LSN
}

// ParseHistory reads the history file of timeline t. It accepts what the
// server's readTimeLineHistory accepts: blank lines and '#' comments are
// skipped, timelines ascend and stay below t. Errors wrap ErrBadHistory.
func ParseHistory(t Timeline, b []byte) (History, error) {
	h := History{Timeline: t}
	if t == 0 {
		return h, fmt.Errorf("history of timeline 0: %w", ErrBadHistory)
	}
	for n, line := range bytes.Split(b, []byte("\n")) {
		entry, ok, err := parseHistoryLine(string(line))
		if err == nil && ok {
			err = h.add(entry)
		}
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d, line %d: %w: %w", t, n+1, err, ErrBadHistory)
		}
	}
	return h, nil
}

func (h *History) add(e HistoryEntry) error {
	if e.Timeline >= h.Timeline {
		return fmt.Errorf("timeline %d is not older than %d", e.Timeline, h.Timeline)
	}
	if n := len(h.Entries); n > 0 && e.Timeline <= h.Entries[n-1].Timeline {
		return fmt.Errorf("timeline %d follows %d", e.Timeline, h.Entries[n-1].Timeline)
	}
	h.Entries = append(h.Entries, e)
	return nil
}

func parseHistoryLine(line string) (e HistoryEntry, ok bool, err error) {
	line = strings.TrimLeft(line, " \t\r\v\f")
	if line == "" || line[0] == '#' {
		return e, false, nil
	}
	tli, rest := cutSpace(line)
	at, reason := cutSpace(rest)
	v, err := strconv.ParseUint(tli, 10, 32)
	if err != nil || v == 0 {
		return e, false, fmt.Errorf("not a timeline: %q", tli)
	}
	lsn, err := ParseLSN(at)
	if err != nil {
		return e, false, err
	}
	return HistoryEntry{Timeline: Timeline(v), End: lsn, Reason: strings.TrimRight(reason, " \t\r")}, true, nil
}

func cutSpace(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t\r\v\f")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t\r\v\f")
}

// Path is the way from LSN 0 to the end of the timeline, oldest first, without
// holes or overlaps; To of the last span is MaxLSN. Timelines that no byte of
// the path lies on are left out: the server writes such entries when a
// recovery that aims at one timeline ends before that timeline began.
func (h History) Path() []TimelineSpan {
	spans := make([]TimelineSpan, 0, len(h.Entries)+1)
	for i, e := range h.Entries {
		// A later entry with an earlier switch point wins, as in
		// tliOfPointInHistory, which asks the newest timeline first.
		to := e.End
		for _, later := range h.Entries[i+1:] {
			to = min(to, later.End)
		}
		spans = appendSpan(spans, e.Timeline, to)
	}
	return appendSpan(spans, h.Timeline, MaxLSN)
}

func appendSpan(spans []TimelineSpan, t Timeline, to LSN) []TimelineSpan {
	var from LSN
	if n := len(spans); n > 0 {
		from = spans[n-1].To
	}
	if from >= to {
		return spans
	}
	return append(spans, TimelineSpan{Timeline: t, From: from, To: to})
}

// Contains reports whether the byte at lsn on timeline t lies on the path. To
// ask about the end of something (a backup's stop LSN), ask for end-1, as the
// server does.
func (h History) Contains(t Timeline, lsn LSN) bool {
	for _, s := range h.Path() {
		if s.Timeline == t && s.From <= lsn && lsn < s.To {
			return true
		}
	}
	return false
}
