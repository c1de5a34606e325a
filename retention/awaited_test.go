package retention

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

func TestAwaited(t *testing.T) {
	const (
		full  = repo.Label("20261120-010000F")
		later = repo.Label("20261122-010000F")
		inc   = repo.Label("20261120-010000F_20261121-010000I")
		inc2  = repo.Label("20261120-010000F_20261121-020000I")
		diff  = repo.Label("20261120-010000F_20261121-010000D")
		of    = repo.Label("20261110-010000F_20261123-020000I")
	)
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		killed   repo.Label
		age      time.Duration // of its last sign of life; -1: it has no journal
		existing []repo.Label
		stays    bool
	}{
		"a full one, and incrementals of older ones since": {full, time.Hour, []repo.Label{of, inc}, true},
		"a full one, and a full one since":                 {full, time.Hour, []repo.Label{later}, false},
		"too old":                                          {full, repo.RemainsKept, nil, false},
		"just young enough":                                {full, repo.RemainsKept - time.Second, nil, true},
		"an incremental, and a later one":                  {inc, time.Hour, []repo.Label{full, inc2}, false},
		"an incremental, and one of another full":          {inc, time.Hour, []repo.Label{full, of}, true},
		"a differential, and a later incremental":          {diff, time.Hour, []repo.Label{full, inc2}, true},
		"an incremental, and a later full":                 {inc, time.Hour, []repo.Label{full, later}, false},
		"no journal, nothing since":                        {later, -1, []repo.Label{full}, true},
		"no journal, and a later one":                      {full, -1, []repo.Label{of}, false},
	} {
		var last time.Time
		if c.age >= 0 {
			last = now.Add(-c.age)
		}
		require.Equal(t, c.stays, awaited(c.killed, last, now, c.existing), name)
	}
	r := repo.Remains{Label: inc}
	require.True(t, r.Serves("20261120-010000F_20261123-030000I", nil))
	require.False(t, r.Serves("20261122-010000F_20261123-030000I", nil))
	require.False(t, r.Serves("20261120-010000F_20261123-030000D", nil))
	require.False(t, r.Serves("20261123-030000F", nil))
	require.True(t, repo.Remains{Label: full}.Serves("20261123-030000F", nil))
}
