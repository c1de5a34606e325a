package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
)

func TestNeededSkipsTheForkSegmentOfTheOldTimeline(t *testing.T) {
	size := pg.SegmentSize(1 << 20)
	h, err := pg.ParseHistory(3, []byte("1\t0/580000\tx\n2\t0/700000\tx\n"))
	require.NoError(t, err)
	need := needed(h, size, 0x210000, 0x900000)
	// Timeline 3 forks at the start of segment 7, so 7 is its own, and 6 is 2's.
	require.Equal(t, []run{{1, 2, 4}, {2, 5, 6}, {3, 7, 8}}, need)

	have := holding{}
	for _, r := range need {
		for n := r.First; n <= r.Last; n++ {
			have.add(r.Timeline, n)
		}
	}
	have.add(1, 5)
	require.Empty(t, have.missing(need))
	delete(have[1], 3)
	require.Equal(t, []run{{1, 3, 3}}, have.missing(need))
	require.Equal(t, []run{{1, 2, 2}, {1, 4, 5}, {2, 5, 6}, {3, 7, 8}}, have.runs())
}

func TestNeededWhenTwoForksLieInOneSegment(t *testing.T) {
	size := pg.SegmentSize(1 << 20)
	h, err := pg.ParseHistory(3, []byte("1\t0/580000\tx\n2\t0/590000\tx\n"))
	require.NoError(t, err)
	require.Equal(t, []run{{1, 2, 4}, {3, 5, 8}}, needed(h, size, 0x210000, 0x900000))
}
