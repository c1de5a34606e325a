package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

func (s suite) ifAbsent(t *testing.T, store object.Store) {
	once := func(content string) error {
		_, err := store.Put(t.Context(), "d/k", strings.NewReader(content), object.PutOptions{IfAbsent: true, Size: int64(len(content))})
		return err
	}
	require.NoError(t, once("first"))
	require.ErrorIs(t, once("second"), object.ErrExists)
	require.ErrorIs(t, once("first"), object.ErrExists, "the same content is no excuse")
	require.Equal(t, "first", get(t, store, "d/k"))

	// Without a known size, and too large for a single request.
	_, err := store.Put(t.Context(), "d/k", stream(1, s.large/2), object.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, object.ErrExists)
	require.Equal(t, "first", get(t, store, "d/k"))

	put(t, store, "d/k", "overwritten")
	require.NoError(t, store.Delete(t.Context(), "d/k"))
	require.NoError(t, once("second"))
	require.Equal(t, "second", get(t, store, "d/k"))
}

func (s suite) ifMatch(t *testing.T, store object.Store) {
	replace := func(content, version string) (object.Info, error) {
		return store.Put(t.Context(), "k", strings.NewReader(content), object.PutOptions{IfMatch: version, Size: int64(len(content))})
	}
	v1 := put(t, store, "k", "one").Version
	second, err := replace("two", v1)
	require.NoError(t, err)
	require.NotEqual(t, v1, second.Version)
	require.Equal(t, "two", get(t, store, "k"))

	_, err = replace("three", v1)
	require.ErrorIs(t, err, object.ErrChanged)
	require.Equal(t, "two", get(t, store, "k"))

	// The version that Stat names is as good as that of Put.
	stat, err := store.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, second.Version, stat.Version)
	_, err = replace("three", stat.Version)
	require.NoError(t, err)

	// Gone: nothing matches, nothing comes back.
	stat, err = store.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.NoError(t, store.Delete(t.Context(), "k"))
	_, err = replace("four", stat.Version)
	require.ErrorIs(t, err, object.ErrChanged)
	requireAbsent(t, store, "k")

	// Gone and back with other bytes.
	put(t, store, "k", "five!")
	_, err = replace("six", stat.Version)
	require.ErrorIs(t, err, object.ErrChanged)
	require.Equal(t, "five!", get(t, store, "k"))
}

// race runs n writers at once and returns the index of the one that won. All
// others must have failed with the error lost.
func race(t *testing.T, n int, lost error, write func(i int) error) int {
	t.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			<-start
			errs[i] = write(i)
		})
	}
	close(start)
	running.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil {
			require.Equal(t, -1, winner, "writers %d and %d both won", winner, i)
			winner = i
			continue
		}
		require.ErrorIs(t, err, lost, "writer %d", i)
	}
	require.NotEqual(t, -1, winner, "nobody won")
	return winner
}

func (s suite) raceIfAbsent(t *testing.T, store object.Store) {
	for round := range 10 {
		key := fmt.Sprintf("race/%d/key", round)
		content := func(i int) string { return fmt.Sprintf("round %d, writer %d", round, i) }
		winner := race(t, s.racers, object.ErrExists, func(i int) error {
			_, err := store.Put(t.Context(), key, strings.NewReader(content(i)), object.PutOptions{IfAbsent: true})
			return err
		})
		require.Equal(t, content(winner), get(t, store, key))
		require.Equal(t, []string{key}, keys(t, store, key, ""))
	}
}

// raceIfAbsentLarge races bodies that need several parts.
func (s suite) raceIfAbsentLarge(t *testing.T, store object.Store) {
	size := s.large / 2
	winner := race(t, 3, object.ErrExists, func(i int) error {
		_, err := store.Put(t.Context(), "race/large", plain{stream(uint64(i), size)}, object.PutOptions{IfAbsent: true})
		return err
	})
	got, err := read(t.Context(), store, "race/large", 0, -1)
	require.NoError(t, err)
	require.True(t, bytes.Equal(fill(uint64(winner), int(size)), got), "what is read is not what the winner wrote")
}

func (s suite) raceIfMatch(t *testing.T, store object.Store) {
	version := put(t, store, "lease/x", "start").Version
	for round := range 10 {
		content := func(i int) string { return fmt.Sprintf("round %d, writer %d", round, i) }
		versions := make([]string, s.racers)
		winner := race(t, s.racers, object.ErrChanged, func(i int) error {
			info, err := store.Put(t.Context(), "lease/x", strings.NewReader(content(i)), object.PutOptions{IfMatch: version})
			versions[i] = info.Version
			return err
		})
		require.Equal(t, content(winner), get(t, store, "lease/x"))
		require.NotEqual(t, version, versions[winner])
		version = versions[winner]
	}
}

// countUpIfMatch counts with compare and swap: one lost update shows in the sum.
func (s suite) countUpIfMatch(t *testing.T, store object.Store) {
	const each = 5
	put(t, store, "counter", "0")
	writers := min(s.racers, 6)
	errs := make([]error, writers)
	increment := func() error {
		for {
			stat, err := store.Stat(t.Context(), "counter")
			if err != nil {
				return err
			}
			b, err := read(t.Context(), store, "counter", 0, -1)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(b))
			if err != nil {
				return err
			}
			_, err = store.Put(t.Context(), "counter", strings.NewReader(strconv.Itoa(n+1)), object.PutOptions{IfMatch: stat.Version})
			if !errors.Is(err, object.ErrChanged) {
				return err
			}
		}
	}
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			for range each {
				if errs[w] = increment(); errs[w] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, strconv.Itoa(writers*each), get(t, store, "counter"))
}
