package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Branch is a timeline that goes on after another one has left it: an old
// primary that was not stopped, or a clone that was let into the archive; also
// the way that was given up by a restore to an earlier moment. Which of the two
// is the cluster is not for the archive to judge: it keeps both.
type Branch struct {
	Timeline pg.Timeline `json:"timeline"` // that goes on
	Child    pg.Timeline `json:"child"`    // that left it
	At       pg.LSN      `json:"at"`       // where
	To       pg.LSN      `json:"to"`       // how far Timeline goes on, at least
	// Live: both were written to at the same time. Times are zero if they are
	// not known. See [Alive].
	Live       bool      `json:"live"`
	ChildBegan time.Time `json:"child_began,omitzero"` // first transaction on the child
	LastOn     time.Time `json:"last_on,omitzero"`     // last transaction on Timeline
}

// String is for people.
func (b Branch) String() string {
	how := "goes on"
	if b.Live {
		how = "IS STILL WRITTEN TO"
	}
	return fmt.Sprintf("timeline %d %s to %s after timeline %d left it at %s", b.Timeline, how, b.To, b.Child, b.At)
}

// Branches finds the branches from what is archived, by parent and then by
// child, without reading any segment. Whether one is alive [Alive] finds out.
func Branches(h repo.Holdings) (all []Branch) {
	for _, child := range h.Timelines() {
		line := h.Line(child)
		if len(line) < 2 {
			continue
		}
		s := line[len(line)-2]
		b := Branch{Timeline: s.Timeline, Child: child, At: s.To, To: goesTo(h, s.Timeline)}
		// The old timeline's own segment of the switch, if there is one, may
		// end right there; what follows cannot.
		if h.SegmentSize.SegmentOf(max(b.To, 1)-1) > h.SegmentSize.SegmentOf(s.To) {
			all = append(all, b)
		}
	}
	slices.SortStableFunc(all, func(a, b Branch) int { return cmp.Compare(a.Timeline, b.Timeline) })
	return all
}

// goesTo is how far the WAL of a timeline goes, whole segments, partial ones
// and those in conflict.
func goesTo(h repo.Holdings, t pg.Timeline) pg.LSN {
	to := archivedTo(h, t)
	for _, p := range h.Partials {
		if p.Segment.Timeline() == t {
			to = max(to, p.ValidTo)
		}
	}
	for _, c := range h.Conflicts {
		if c.Name.Kind != pg.FileSegment || c.Name.Timeline() != t {
			continue
		}
		if n, err := pg.SegmentName(c.Name.Name).Number(h.SegmentSize); err == nil {
			to = max(to, h.SegmentSize.Start(n+1))
		}
	}
	return to
}

// Alive looks, for each branch, whether its timeline has transactions that are
// younger than the first one of the timeline that left it. It reads few heads.
// What is damaged or cannot be decrypted leaves the question open.
func Alive(ctx context.Context, h repo.Holdings, heads *repo.HeadCache, branches []Branch) error {
	for i := range branches {
		b := &branches[i]
		var err error
		if b.ChildBegan, err = extreme(ctx, h, heads, b.Child, b.At, false); err != nil {
			return err
		}
		if b.LastOn, err = extreme(ctx, h, heads, b.Timeline, b.At, true); err != nil {
			return err
		}
		b.Live = !b.ChildBegan.IsZero() && b.LastOn.After(b.ChildBegan)
	}
	return nil
}

// maxLooked is the most heads that are read in search of a transaction.
const maxLooked = 64

// extreme is the time of the first or last transaction of a timeline in the
// segments behind lsn.
func extreme(ctx context.Context, h repo.Holdings, heads *repo.HeadCache, t pg.Timeline, lsn pg.LSN, last bool) (time.Time, error) {
	var segments []pg.SegmentNo
	for _, r := range h.Runs[t] {
		from, to := max(h.SegmentSize.SegmentOf(r.From), h.SegmentSize.SegmentOf(lsn)), h.SegmentSize.SegmentOf(r.To)
		if last && to > from+maxLooked {
			from = to - maxLooked
		}
		for n := from; n < to && (last || len(segments) < maxLooked); n++ {
			segments = append(segments, n)
		}
	}
	if last {
		slices.Reverse(segments)
	}
	for _, n := range segments[:min(len(segments), maxLooked)] {
		head, err := heads.SegmentHead(ctx, h.SegmentSize.Name(t, n))
		switch {
		case errors.Is(err, repo.ErrIntegrity), errors.Is(err, repo.ErrNoIdentity), errors.Is(err, repo.ErrNotFound):
			return time.Time{}, nil
		case err != nil:
			return time.Time{}, err
		case last && head.LastCommit != nil:
			return *head.LastCommit, nil
		case !last && n > h.SegmentSize.SegmentOf(lsn) && head.FirstCommit != nil:
			// Its first segment begins with a copy of the old timeline's
			// transactions.
			return *head.FirstCommit, nil
		}
	}
	return time.Time{}, nil
}
