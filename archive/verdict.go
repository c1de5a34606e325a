package archive

import (
	"errors"
	"fmt"

	"github.com/walkeep/walkeep/pg"
)

// ErrGap: needed WAL is not there. It is in the errors of [Survey.Whole].
var ErrGap = errors.New("WAL is missing")

func (r RepoCoverage) whole(behind int) error {
	if r.Err != nil {
		return r.Err
	}
	c := &r.Coverage
	gaps, late := 0, 0
	for _, g := range c.Gaps() {
		gaps += g.Segments
	}
	for _, g := range c.Behind() {
		late += g.Segments
	}
	switch {
	case gaps > 0:
		return fmt.Errorf("%w: %d segments in %d gaps", ErrGap, gaps, len(c.Gaps()))
	case len(c.Histories) > 0:
		return fmt.Errorf("%w: %s", ErrGap, pg.HistoryName(c.Histories[0]))
	case behind >= 0 && late > behind:
		return fmt.Errorf("%w: it is %d segments behind", ErrGap, late)
	case c.HistoryConflict():
		return fmt.Errorf("two servers chose the same timeline")
	}
	return r.Holdings.Damaged
}

// HistoryConflict reports whether two servers chose one timeline number.
func (c *Coverage) HistoryConflict() bool {
	for _, f := range c.Conflicts {
		if f.History() {
			return true
		}
	}
	return false
}
