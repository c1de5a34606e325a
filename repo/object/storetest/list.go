package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

// treacherous is a set of keys whose byte order is not the order in which a
// walk of directories meets them: ' ' to '.' sort before '/', the rest after.
var treacherous = []string{
	"a", "a b", "a!/x", "a-/x", "a-/y", "a-0", "a-b", "a.b/x", "a.c",
	"b/1", "b/2", "b-/1", "b/10", "b/1-", "b/1.2/3", "b0", "b!", "b~", "b/c/d", "b/c-d", "b/c.d/e", "b/c0/e",
	"A/x", "Z", "_", "~", "0", "00", "1/0", "1/00/1",
	"wal/00000001/000000A1/0000000100000000000000A1", "wal/00000001/000000A1/0000000100000000000000A2", "wal/00000001.x", "wal-x",
}

// expected is what List should yield, from the definition.
func expected(all []string, prefix, after string) []string {
	var want []string
	for _, k := range all {
		if strings.HasPrefix(k, prefix) && k > after {
			want = append(want, k)
		}
	}
	return want
}

func (s suite) list(t *testing.T, store object.Store) {
	require.Empty(t, keys(t, store, "", ""))
	require.Empty(t, keys(t, store, "no/such", "x"))
	for _, k := range []string{"wal/1/b", "wal/1/a", "wal/2/a", "wall", "backup/x"} {
		put(t, store, k, k)
	}
	require.Equal(t, []string{"backup/x", "wal/1/a", "wal/1/b", "wal/2/a", "wall"}, keys(t, store, "", ""))
	require.Equal(t, []string{"wal/1/a", "wal/1/b", "wal/2/a", "wall"}, keys(t, store, "wal", ""))
	require.Equal(t, []string{"wal/1/a", "wal/1/b", "wal/2/a"}, keys(t, store, "wal/", ""))
	require.Equal(t, []string{"wal/1/b"}, keys(t, store, "wal/1/b", ""))
	require.Equal(t, []string{"wal/1/b", "wal/2/a"}, keys(t, store, "wal/", "wal/1/a"))
	require.Empty(t, keys(t, store, "wal/1/b/", ""))
	require.Empty(t, keys(t, store, "wal/1/", "wal/1/b"))
	// Names alone are the same names.
	var names []string
	err := store.List(t.Context(), "wal", object.ListOptions{After: "wal/1/a", NamesOnly: true}, func(i object.Info) error {
		names = append(names, i.Key)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"wal/1/b", "wal/2/a", "wall"}, names)
}

// listOrder tries every prefix of every key with every key, and every prefix of
// one, as After.
func (s suite) listOrder(t *testing.T, store object.Store) {
	all := slices.Clone(treacherous)
	slices.Sort(all)
	for _, k := range slices.Backward(all) {
		require.NoError(t, object.CheckKey(k))
		put(t, store, k, k)
	}
	prefixes := map[string]bool{"": true, "zzz": true, "a/": true}
	for _, k := range all {
		for i := 1; i <= len(k); i++ {
			// Long keys are cut at their interesting ends only.
			if i < 4 || i > len(k)-2 || k[i-1] == '/' {
				prefixes[k[:i]] = true
			}
		}
	}
	for prefix := range prefixes {
		require.Equal(t, expected(all, prefix, ""), keys(t, store, prefix, ""), "prefix %q", prefix)
		require.Equal(t, expected(all, "", prefix), keys(t, store, "", prefix), "after %q", prefix)
	}
	for _, prefix := range []string{"a", "b/", "b/1", "wal"} {
		for _, after := range []string{"A", "a", "a-/x", "b", "b/", "b/1", "b/1.2", "b/1.2/3", "b/c", "b~", "wal/00000001/000000A1/", "z"} {
			require.Equal(t, expected(all, prefix, after), keys(t, store, prefix, after), "prefix %q after %q", prefix, after)
		}
	}
}

// bulk stores n keys, a few at a time, and returns them in byte order.
func (s suite) bulk(t *testing.T, store object.Store, n int, key func(i int) string) []string {
	t.Helper()
	all := make([]string, n)
	work := make(chan int)
	errs := make(chan error, s.parallel)
	for range s.parallel {
		go func() {
			var failed error
			for i := range work {
				if failed == nil {
					_, failed = store.Put(t.Context(), all[i], strings.NewReader(""), object.PutOptions{})
				}
			}
			errs <- failed
		}()
	}
	for i := range n {
		all[i] = key(i)
		work <- i
	}
	close(work)
	for range s.parallel {
		require.NoError(t, <-errs)
	}
	sort.Strings(all)
	return all
}

func (s suite) listPages(t *testing.T, store object.Store) {
	put(t, store, "a/before", "")
	put(t, store, "zz/after", "")
	all := s.bulk(t, store, s.keys, func(i int) string {
		if i%10 == 0 {
			return fmt.Sprintf("many/%06d/inner", i)
		}
		return fmt.Sprintf("many/%06d", i)
	})
	require.Equal(t, all, keys(t, store, "many/", ""))
	require.Len(t, keys(t, store, "", ""), len(all)+2)
	for _, at := range []int{0, 1, 998, 999, 1000, 1001, len(all) - 2, len(all) - 1} {
		require.Equal(t, expected(all, "", all[at]), keys(t, store, "many/", all[at]), "after %s", all[at])
	}

	// One call deletes more than any cloud's batch holds, absent ones between.
	doomed := slices.Concat(all[:len(all)-1], []string{"absent/one", "absent/two"})
	require.NoError(t, store.Delete(t.Context(), doomed...))
	require.Equal(t, []string{"a/before", all[len(all)-1], "zz/after"}, keys(t, store, "", ""))
}

func (s suite) listStops(t *testing.T, store object.Store) {
	for i := range 20 {
		put(t, store, fmt.Sprintf("d%d/k", i), "")
	}
	enough := errors.New("enough")
	seen := 0
	err := store.List(t.Context(), "", object.ListOptions{}, func(object.Info) error {
		if seen++; seen == 7 {
			return enough
		}
		return nil
	})
	require.True(t, err == enough, "fn's error comes back as it is, not %v", err) //nolint:errorlint // identity is the promise
	require.Equal(t, 7, seen)
}

func (s suite) listFnUsesStore(t *testing.T, store object.Store) {
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("d%02d/k", i))
		put(t, store, want[i], want[i])
	}
	var got []string
	err := store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		got = append(got, i.Key)
		b, err := read(t.Context(), store, i.Key, 0, -1)
		if err == nil && string(b) != i.Key {
			err = fmt.Errorf("%s holds %q", i.Key, b)
		}
		return errors.Join(err, store.Delete(t.Context(), i.Key))
	})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Empty(t, keys(t, store, "", ""))
}

func (s suite) listCancelled(t *testing.T, store object.Store) {
	all := s.bulk(t, store, 1100, func(i int) string { return fmt.Sprintf("k%04d", i) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	err := store.List(ctx, "", object.ListOptions{}, func(object.Info) error {
		if seen++; seen == 10 {
			cancel()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, seen, len(all))
}
