package ports

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReserve(t *testing.T) {
	low, high := bounds()
	var mu sync.Mutex
	var all []*Port
	seen := map[int]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				p, err := Reserve()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[p.Number] {
					t.Errorf("%d twice", p.Number)
				}
				seen[p.Number] = true
				all = append(all, p)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, all, 400)
	for _, p := range all {
		require.GreaterOrEqual(t, p.Number, low)
		require.Less(t, p.Number, high)
		require.Error(t, (&Port{Number: p.Number}).take(), "it is held")
		p.Close()
		p.Close()
	}
	one := all[0]
	require.NoError(t, one.take(), "it was given back")
	one.Close()

	l, err := net.Listen("tcp", one.Address())
	require.NoError(t, err)
	defer l.Close()
	require.Error(t, one.take(), "somebody listens")
	require.NoError(t, l.Close())
	require.NoError(t, one.take())
	one.Close()
	(*Port)(nil).Close()
}
