package wal_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg/wal"
)

// TestDigest holds digests against what xxh128sum prints, and shows that it does not
// matter in which pieces the bytes come.
func TestDigest(t *testing.T) {
	require.Equal(t, "99aa06d3014798d86001c324468d497f", wal.DigestOf(nil).String())
	require.Equal(t, "06b05ab6733a618578af5f94892f3950", wal.DigestOf([]byte("abc")).String())
	var none wal.Digester
	require.Equal(t, wal.DigestOf(nil), none.Digest())

	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	for range 50 {
		var d wal.Digester
		for rest := b; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(100_000))
			_, _ = d.Write(rest[:n])
			rest = rest[n:]
			require.Equal(t, wal.DigestOf(b[:len(b)-len(rest)]), d.Digest(), "and can go on")
		}
	}
}
