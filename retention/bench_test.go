package retention

import (
	"context"
	"flag"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
)

var expired = flag.Int("expired", 1_000_000, "how many segments BenchmarkRun expires")

// BenchmarkRun expires a million segments of a store in memory: what our own part
// of it costs. See docs/performance.md for what a store adds.
func BenchmarkRun(b *testing.B) {
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		s := newSite(b)
		first := pg.SegmentNo(*expired + 1)
		for n := pg.SegmentNo(1); n < first; n++ {
			name := string(testSize.Name(1, n))
			key := "7001/wal/" + name[:8] + "/" + name[8:16] + "/" + name
			_, err := s.store.Put(ctx, key, strings.NewReader("x"), object.PutOptions{Size: 1})
			require.NoError(b, err)
		}
		s.segments(first, first+2)
		s.backup(repo.Full, "", testTime, first)
		b.StartTimer()
		res, err := Run(ctx, open(b, s.store), options(Policy{Full: 1}))
		require.NoError(b, err)
		require.Equal(b, *expired, res.Done.WAL)
		b.ReportMetric(float64(b.Elapsed().Seconds())/float64(b.N)/float64(*expired)*1e6, "s/million")
	}
}
