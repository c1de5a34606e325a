package streaming

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
)

// TestSamples: the age of what is not stored is never told too low.
func TestSamples(t *testing.T) {
	begin := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	var s samples
	require.Zero(t, s.age(0, begin))
	require.Zero(t, s.first())
	// A byte each 10 ms, for a minute: more than is remembered.
	const n = 6000
	for i := 1; i <= n; i++ {
		s.add(pg.LSN(i), at(10*i))
		s.add(pg.LSN(i), at(10*i+5)) // nothing new
	}
	require.LessOrEqual(t, len(s), maxSamples)
	now := at(10 * n)
	for lsn := 0; lsn < n; lsn += 7 {
		true0 := now.Sub(at(10 * (lsn + 1))) // the byte behind lsn
		got := s.age(pg.LSN(lsn), now)
		require.GreaterOrEqual(t, got, true0)
		require.LessOrEqual(t, got, true0+200*time.Millisecond)
	}
	require.Zero(t, s.age(n, now))
	s.forget()
	require.Zero(t, s.age(0, now))
}
