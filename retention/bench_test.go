package retention

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/s3"
)

var expired = flag.Int("expired", 10_000, "how many segments BenchmarkExpire has to expire")

// BenchmarkExpire expires segments of an S3 gateway on this machine, and says what
// a million of them would take: their number is what it is proportional to. See
// docs/performance.md.
func BenchmarkExpire(b *testing.B) {
	ctx := context.Background()
	server := stores.Run(b, stores.StartS3, stores.Options{})
	for b.Loop() {
		b.StopTimer()
		bucket, err := server.Bucket(ctx)
		require.NoError(b, err)
		store, err := s3.New(ctx, server.Options(bucket))
		require.NoError(b, err)
		s := newSiteIn(b, store)
		first := pg.SegmentNo(*expired + 1)
		var group errgroup.Group
		group.SetLimit(16)
		for n := pg.SegmentNo(1); n < first; n++ {
			name := string(testSize.Name(1, n))
			key := testSystem.String() + "/wal/" + name[:8] + "/" + name[8:16] + "/" + name
			group.Go(func() error {
				_, err := store.Put(ctx, key, strings.NewReader("x"), object.PutOptions{Size: 1})
				return err
			})
		}
		require.NoError(b, group.Wait())
		s.segments(first, first+2)
		s.backup(repo.Full, "", testTime, first)
		b.StartTimer()
		begun := time.Now()
		res, err := Run(ctx, open(b, store), options(Policy{Full: 1}))
		require.NoError(b, err)
		require.Equal(b, *expired, res.Done.WAL)
		b.ReportMetric(time.Since(begun).Seconds()/float64(*expired)*1e6, "s/million")
		require.NoError(b, store.Close())
	}
}
