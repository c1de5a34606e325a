package drill

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

func TestPick(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	require.Zero(t, pick(rng, nil))
	at := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	windows := []repo.Window{
		{Earliest: at, Latest: at}, // nothing to choose from
		{Earliest: at.Add(time.Hour), Latest: at.Add(2 * time.Hour)},
		{Earliest: at.Add(10 * time.Hour), Latest: at.Add(13 * time.Hour)},
	}
	in := [3]int{}
	for range 1000 {
		got := pick(rng, windows)
		for i, w := range windows {
			if !got.Before(w.Earliest) && got.Before(w.Latest) {
				in[i]++
			}
		}
	}
	require.Zero(t, in[0])
	require.Equal(t, 1000, in[1]+in[2])
	require.InDelta(t, 250, in[1], 100)
}
