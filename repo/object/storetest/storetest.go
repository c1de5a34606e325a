// Package storetest is the conformance suite of package object: what every
// driver promises, and every wrapper keeps, is tested here and nowhere else.
//
// A driver's test is one call:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) object.Store { return memory.New() })
//	}
//
// open is called once per subtest and returns an empty store (a new bucket or a
// new prefix in one); the suite closes it. Wrappers run the suite too, bare and
// stacked. Slow emulators scale the bulk down with options, but nothing can be
// left out: a store without a promise is not a store.
package storetest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

type settings struct {
	keys      int   // how many keys the paging tests store
	large     int64 // size in bytes of the large object
	racers    int   // how many goroutines race
	maxKey    int   // longest key in bytes
	parallel  int   // how many puts the bulk tests run at a time
	clockSkew time.Duration
}

// Option changes the size of the suite.
type Option func(*settings)

// Keys sets how many keys the paging tests store: more than one page of 1000,
// else the test fails. Default 2300.
func Keys(n int) Option { return func(s *settings) { s.keys = n } }

// Large sets the size in bytes of the large object that is put without telling
// its size: at least 12 MiB, and several parts of a multipart upload.
// Default 40 MiB.
func Large(bytes int64) Option { return func(s *settings) { s.large = bytes } }

// Racers sets how many writers race for one key. Default 16.
func Racers(n int) Option { return func(s *settings) { s.racers = n } }

// Prefixed tells that a prefix of n bytes, its slash included, is put before
// every key, and so is missing from the longest key.
func Prefixed(n int) Option { return func(s *settings) { s.maxKey = object.MaxKeyLength - n } }

// suite is one run: the settings and how to get an empty store.
type suite struct {
	settings
	open func(t *testing.T) object.Store
}

// Run tests that the stores which open returns keep every promise of
// [object.Store].
func Run(t *testing.T, open func(t *testing.T) object.Store, opts ...Option) {
	t.Helper()
	s := suite{open: open, settings: settings{
		keys: 2300, large: 40 << 20, racers: 16, maxKey: object.MaxKeyLength, parallel: 16,
		clockSkew: time.Hour,
	}}
	for _, o := range opts {
		o(&s.settings)
	}
	require.Greater(t, s.keys, 1000, "the paging tests need more than one page")
	for _, test := range []struct {
		name string
		run  func(suite, *testing.T, object.Store)
	}{
		{"RoundTrip", suite.roundTrip},
		{"Overwrite", suite.overwrite},
		{"Absent", suite.absent},
		{"Empty", suite.empty},
		{"Delete", suite.delete},
		{"OddKeys", suite.oddKeys},
		{"BadKeys", suite.badKeys},
		{"ContradictingOptions", suite.contradictingOptions},
		{"Ranges", suite.ranges},
		{"IfAbsent", suite.ifAbsent},
		{"IfMatch", suite.ifMatch},
		{"RaceIfAbsent", suite.raceIfAbsent},
		{"RaceIfAbsentLarge", suite.raceIfAbsentLarge},
		{"RaceIfMatch", suite.raceIfMatch},
		{"CountUpIfMatch", suite.countUpIfMatch},
		{"PutCancelled", suite.putCancelled},
		{"PutBodyFails", suite.putBodyFails},
		{"PutWrongSize", suite.putWrongSize},
		{"PutLeavesBodyAlone", suite.putLeavesBodyAlone},
		{"PutSeeker", suite.putSeeker},
		{"PutSmallReads", suite.putSmallReads},
		{"Large", suite.largeObject},
		{"ConcurrentPuts", suite.concurrentPuts},
		{"PutsBesideDeletes", suite.putsBesideDeletes},
		{"AtomicOverwrite", suite.atomicOverwrite},
		{"GetBesideDelete", suite.getBesideDelete},
		{"GetCancelled", suite.getCancelled},
		{"CancelledFromTheStart", suite.cancelledFromTheStart},
		{"List", suite.list},
		{"ListOrder", suite.listOrder},
		{"ListPages", suite.listPages},
		{"ListStops", suite.listStops},
		{"ListFnUsesStore", suite.listFnUsesStore},
		{"ListCancelled", suite.listCancelled},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := open(t)
			defer func() { require.NoError(t, store.Close()) }()
			require.NotEmpty(t, store.String())
			test.run(s, t, store)
		})
	}
}

// fill returns n bytes that no other seed returns, cheap to make and hard to
// compress.
func fill(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seedOf(seed)).Read(b)
	return b
}

func seedOf(seed uint64) (s [32]byte) {
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	return s
}

// stream yields what fill(seed, n) returns, without holding it.
func stream(seed uint64, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(seedOf(seed)), n)
}

// plain hides everything but Read, so that no driver can seek or see a length.
type plain struct{ io.Reader }

func put(t *testing.T, store object.Store, key, content string) object.Info {
	t.Helper()
	info, err := store.Put(t.Context(), key, strings.NewReader(content), object.PutOptions{Size: int64(len(content))})
	require.NoError(t, err)
	require.Equal(t, key, info.Key)
	require.Equal(t, int64(len(content)), info.Size)
	require.NotEmpty(t, info.Version)
	return info
}

// read is Get to the end, for goroutines that may not end the test.
func read(ctx context.Context, store object.Store, key string, offset, length int64) ([]byte, error) {
	r, err := store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func get(t *testing.T, store object.Store, key string) string {
	t.Helper()
	b, err := read(t.Context(), store, key, 0, -1)
	require.NoError(t, err)
	return string(b)
}

func keys(t *testing.T, store object.Store, prefix, after string) []string {
	t.Helper()
	var got []string
	err := store.List(t.Context(), prefix, object.ListOptions{After: after}, func(i object.Info) error {
		got = append(got, i.Key)
		return nil
	})
	require.NoError(t, err)
	return got
}

// requireAbsent checks that there is no trace of key.
func requireAbsent(t *testing.T, store object.Store, key string) {
	t.Helper()
	_, err := store.Stat(t.Context(), key)
	require.ErrorIs(t, err, object.ErrNotFound)
	_, err = store.Get(t.Context(), key, 0, -1)
	require.ErrorIs(t, err, object.ErrNotFound)
	require.NotContains(t, keys(t, store, "", ""), key)
}
