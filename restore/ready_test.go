package restore

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func batchOf(stored, plain int64, pieces int) *batch {
	b := &batch{stored: stored, plain: plain}
	for range pieces {
		b.items = append(b.items, item{})
	}
	return b
}

// TestReady: of two workers one gets what compresses badly and the other the rest,
// each in order; who finds nothing to his taste takes what there is.
func TestReady(t *testing.T) {
	ctx := context.Background()
	q := newReady()
	text := []*batch{batchOf(80, 100, 1), batchOf(90, 100, 1), batchOf(85, 100, 1)}
	rows := []*batch{batchOf(5, 100, 1), batchOf(4, 100, 1), batchOf(6, 100, 1)}
	for _, b := range append(append([]*batch{}, text...), rows...) {
		require.NoError(t, q.put(ctx, b))
	}
	q.end()
	take := func(taste taste) *batch {
		b, err := q.take(ctx, taste)
		require.NoError(t, err)
		return b
	}
	require.Same(t, rows[0], take(sparse))
	require.Same(t, text[0], take(dense))
	require.Same(t, rows[1], take(sparse))
	require.Same(t, rows[2], take(sparse))
	require.Same(t, text[1], take(inOrder))
	require.Same(t, text[2], take(sparse), "there is nothing else")
	require.Nil(t, take(dense))
	require.Nil(t, take(sparse))
	require.Zero(t, q.pieces+int(q.stored)+int(q.plain))
}

// TestReadyEmptyFiles: batches without data are to everybody's taste.
func TestReadyEmptyFiles(t *testing.T) {
	q := newReady()
	require.NoError(t, q.put(context.Background(), batchOf(0, 0, 3)))
	b, err := q.take(context.Background(), sparse)
	require.NoError(t, err)
	require.Len(t, b.items, 3)
}

// TestReadyIsBounded: who puts waits for room, and all that wait end with the
// context.
func TestReadyIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	q := newReady()
	require.NoError(t, q.put(ctx, batchOf(1, 1, 2*maxReady)), "one that is larger than all room goes in alone")
	waits := make(chan error)
	go func() { waits <- q.put(ctx, batchOf(1, 1, 1)) }()
	select {
	case <-waits:
		t.Fatal("there was no room")
	case <-time.After(20 * time.Millisecond):
	}
	_, err := q.take(ctx, dense)
	require.NoError(t, err)
	require.NoError(t, <-waits)
	_, err = q.take(ctx, dense)
	require.NoError(t, err)

	go func() { _, err := q.take(ctx, dense); waits <- err }()
	require.NoError(t, q.put(ctx, batchOf(1, 1, maxReady)))
	require.NoError(t, <-waits)
	require.NoError(t, q.put(ctx, batchOf(1, 1, maxReady)))
	go func() { waits <- q.put(ctx, batchOf(1, 1, 1)) }()
	time.Sleep(5 * time.Millisecond)
	cancel()
	require.ErrorIs(t, <-waits, context.Canceled)
	_, err = q.take(ctx, dense)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, q.put(ctx, batchOf(1, 1, 1)), context.Canceled)
}

// TestReadyGivesEach: each batch is handed out once, whoever takes.
func TestReadyGivesEach(t *testing.T) {
	q := newReady()
	g, ctx := errgroup.WithContext(context.Background())
	const n = 2000
	g.Go(func() error {
		defer q.end()
		rng := rand.New(rand.NewPCG(1, 1))
		for range n {
			if err := q.put(ctx, batchOf(rng.Int64N(100), 100, 1+rng.IntN(200))); err != nil {
				return err
			}
		}
		return nil
	})
	const workers = 3
	var got [workers]map[*batch]bool
	for i := range workers {
		got[i] = map[*batch]bool{}
		g.Go(func() error {
			for {
				b, err := q.take(ctx, tasteOf(i, workers))
				if b == nil || err != nil {
					return err
				}
				if got[i][b] {
					return errors.New("twice")
				}
				got[i][b] = true
			}
		})
	}
	require.NoError(t, g.Wait())
	all := map[*batch]bool{}
	for _, m := range got {
		for b := range m {
			require.False(t, all[b])
			all[b] = true
		}
	}
	require.Len(t, all, n)
	require.Zero(t, q.pieces)
	require.Equal(t, inOrder, tasteOf(0, 1))
}
