package cores

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpread(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "1")
	Spread()
	require.Equal(t, before, runtime.GOMAXPROCS(0), "the user's word counts")
	t.Setenv("GOMAXPROCS", "")
	Spread()
	require.Equal(t, 2*Count(), runtime.GOMAXPROCS(0))
	Spread()
	require.Equal(t, 2*Count(), runtime.GOMAXPROCS(0), "once")
	require.Positive(t, Count())
}
