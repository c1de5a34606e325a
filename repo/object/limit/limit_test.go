package limit_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/limit"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

func TestStore(t *testing.T) {
	for name, opts := range map[string]limit.Options{
		"none":     {},
		"one":      {Requests: 2, ReadRate: 1 << 40, WriteRate: 1 << 40},
		"requests": {Requests: 4},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(*testing.T) object.Store { return limit.New(memory.New(), opts) },
				storetest.Keys(1100), storetest.Large(12<<20))
		})
	}
}

// gauge counts the Puts that run at a time.
type gauge struct {
	object.Store
	now, most atomic.Int64
}

func (g *gauge) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	n := g.now.Add(1)
	defer g.now.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	time.Sleep(time.Second)
	return g.Store.Put(ctx, key, body, opts)
}

func urgent(key string) bool { return strings.HasPrefix(key, "lease/") }

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &gauge{Store: memory.New()}
		store := limit.New(below, limit.Options{Requests: 3, Urgent: urgent})
		began := time.Now()
		var running sync.WaitGroup
		for i := range 9 {
			running.Go(func() {
				_, err := store.Put(t.Context(), "k"+string(rune('0'+i)), strings.NewReader("x"), object.PutOptions{})
				require.NoError(t, err) //nolint:testifylint // ends the goroutine only
			})
		}
		synctest.Wait()
		_, err := store.Put(t.Context(), "lease/x", strings.NewReader("x"), object.PutOptions{})
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began), "the lease did not queue")
		running.Wait()
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, int64(4), below.most.Load(), "three, and the lease")
	})
}

func TestWaitIsCancelled(t *testing.T) {
	store := limit.New(memory.New(), limit.Options{Requests: 1})
	_, err := store.Put(t.Context(), "k", strings.NewReader("x"), object.PutOptions{})
	require.NoError(t, err)
	open, err := store.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = store.Stat(ctx, "k")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, open.Close())
	require.NoError(t, open.Close(), "gives nothing back twice")
	_, err = store.Stat(t.Context(), "k")
	require.NoError(t, err)

	// Read to the end is as good as closed.
	open, err = store.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	_, err = io.ReadAll(open)
	require.NoError(t, err)
	_, err = store.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.NoError(t, open.Close())
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bytesPerSecond, size = 1 << 20, 10 << 20
		store := limit.New(memory.New(), limit.Options{ReadRate: bytesPerSecond, WriteRate: 2 * bytesPerSecond, Urgent: urgent})
		content := strings.Repeat("x", size)
		took := func(do func()) float64 {
			began := time.Now()
			do()
			return time.Since(began).Seconds()
		}
		put := func(key string) func() {
			return func() {
				_, err := store.Put(t.Context(), key, strings.NewReader(content), object.PutOptions{})
				require.NoError(t, err)
			}
		}
		get := func(key string) func() {
			return func() {
				r, err := store.Get(t.Context(), key, 0, -1)
				require.NoError(t, err)
				n, err := io.Copy(io.Discard, r)
				require.NoError(t, err)
				require.Equal(t, int64(size), n)
			}
		}
		require.InDelta(t, 5, took(put("k")), 0.2)
		require.InDelta(t, 10, took(get("k")), 0.2)
		require.Zero(t, took(put("lease/k")))
		require.Zero(t, took(get("lease/k")))
		// Two share the rate.
		require.InDelta(t, 20, took(func() {
			var both sync.WaitGroup
			both.Go(get("k"))
			both.Go(get("k"))
			both.Wait()
		}), 0.4)
	})
}
