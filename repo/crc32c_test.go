package repo

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCombineCRC(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		all := make([]byte, rng.IntN(1<<16))
		for i := range all {
			all[i] = byte(rng.Uint32())
		}
		cut := rng.IntN(len(all) + 1)
		a, b := all[:cut], all[cut:]
		require.Equal(t, crc32.Checksum(all, table),
			CombineCRC(crc32.Checksum(a, table), crc32.Checksum(b, table), int64(len(b))))
	}
	// Zeroes far longer than memory: half of them twice is all of them.
	one := crc32.Checksum(make([]byte, 1<<20), table)
	whole := one
	for n := int64(1 << 20); n < 1<<50; n *= 2 {
		whole = CombineCRC(whole, whole, n)
	}
	half := CombineCRC(whole, one, 1<<20)
	require.Equal(t, half, CombineCRC(one, whole, 1<<50))
}
