package retry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/limit"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/repo/object/prefix"
	"github.com/walkeep/walkeep/repo/object/retry"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

var fast = retry.Options{InitialWait: time.Microsecond, MaxWait: 10 * time.Microsecond}

func TestStore(t *testing.T) {
	for name, below := range map[string]func() object.Store{
		"bare": func() object.Store { return memory.New() },
		"failing": func() object.Store {
			return faulty.New(memory.New(), faulty.Rule{Every: 3, Fault: faulty.Fail})
		},
		"breaking": func() object.Store {
			return faulty.New(memory.New(),
				faulty.Rule{Op: faulty.Get, Every: 2, Fault: faulty.Truncate, Bytes: 5000},
				faulty.Rule{Op: faulty.List, Every: 2, Fault: faulty.Truncate, Bytes: 10},
				faulty.Rule{Op: faulty.Delete, Every: 2, Fault: faulty.Truncate, Bytes: 1},
				faulty.Rule{Op: faulty.Stat, Every: 2, Fault: faulty.Throttle},
			)
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(*testing.T) object.Store { return retry.New(below(), fast) },
				storetest.Keys(1100), storetest.Large(12<<20))
		})
	}
}

// TestStack runs the suite on wrappers in the order in which the programs stack
// them.
func TestStack(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		broken := faulty.New(memory.New(), faulty.Rule{Every: 5, Fault: faulty.Fail})
		prefixed, err := prefix.New(broken, "hippo")
		require.NoError(t, err)
		return retry.New(limit.New(prefixed, limit.Options{Requests: 2, WriteRate: 1 << 40}), fast)
	}, storetest.Prefixed(len("hippo/")), storetest.Keys(1100), storetest.Large(12<<20))
}

// setup returns a memory store, broken by rules, below a retry with the default
// options: use it in a synctest bubble, where time costs nothing.
func setup(rules ...faulty.Rule) (*retry.Store, *faulty.Store, *memory.Store) {
	below := memory.New()
	broken := faulty.New(below, rules...)
	return retry.New(broken, retry.Options{}), broken, below
}

func read(t *testing.T, store object.Store, key string, offset, length int64) string {
	t.Helper()
	r, err := store.Get(t.Context(), key, offset, length)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return string(b)
}

func put(t *testing.T, store object.Store, key, content string, opts object.PutOptions) (object.Info, error) {
	t.Helper()
	return store.Put(t.Context(), key, strings.NewReader(content), opts)
}

func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		broken := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
		store := retry.New(broken, retry.Options{Log: zap.New(core)})
		began := time.Now()
		_, err := store.Stat(t.Context(), "k")
		require.ErrorIs(t, err, faulty.ErrFault)
		require.ErrorContains(t, err, "gave up after")
		require.InDelta(t, 285, time.Since(began).Seconds(), 15, "not before it must")
		tried := broken.Count(faulty.Stat)
		require.InDelta(t, 25, tried, 10, "waits grow, but not without bound")
		require.Equal(t, tried-1, logs.Len())
	})
}

func TestPermanent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, broken, _ := setup()
		_, err := store.Stat(t.Context(), "absent")
		require.ErrorIs(t, err, object.ErrNotFound)
		require.Equal(t, 1, broken.Count(""))

		store, broken, _ = setup(faulty.Rule{Fault: faulty.Deny})
		_, err = store.Get(t.Context(), "k", 0, -1)
		require.ErrorIs(t, err, object.ErrDenied)
		require.Equal(t, 1, broken.Count(""))

		store, broken, _ = setup(faulty.Rule{Fault: faulty.Fail, Err: object.Permanent(errors.New("no such bucket"))})
		require.ErrorContains(t, store.Delete(t.Context(), "k"), "no such bucket")
		require.Equal(t, 1, broken.Count(""))
	})
}

func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, below := setup(faulty.Rule{At: 1, Fault: faulty.Throttle, Delay: time.Minute})
		_, err := put(t, below, "k", "x", object.PutOptions{})
		require.NoError(t, err)
		began := time.Now()
		_, err = store.Stat(t.Context(), "k")
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(began), time.Minute)
		require.Less(t, time.Since(began), 76*time.Second)

		// Longer than the bound: fails at once instead of waiting in vain.
		store, _, _ = setup(faulty.Rule{Fault: faulty.Throttle, Delay: time.Hour})
		began = time.Now()
		_, err = store.Stat(t.Context(), "k")
		require.ErrorIs(t, err, faulty.ErrFault)
		require.Zero(t, time.Since(began))
	})
}

func TestCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, _ := setup(faulty.Rule{Fault: faulty.Fail})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := store.Stat(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, faulty.ErrFault, "the reason for the wait is named too")
	})
}

func TestPutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Broken after 4 bytes: the body begins anew, where it stood at first.
		store, broken, _ := setup(faulty.Rule{Op: faulty.Put, At: 1, Fault: faulty.Truncate, Bytes: 4})
		body := strings.NewReader("skip0123456789")
		_, err := body.Seek(4, io.SeekStart)
		require.NoError(t, err)
		_, err = store.Put(t.Context(), "k", body, object.PutOptions{Size: 10})
		require.NoError(t, err)
		require.Equal(t, 2, broken.Count(faulty.Put))
		require.Equal(t, "0123456789", read(t, store, "k", 0, -1))
	})
}

func TestPutOfWhatCannotSeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := func() io.Reader { return iotest.HalfReader(strings.NewReader("0123456789")) }
		store, broken, _ := setup(faulty.Rule{Op: faulty.Put, At: 1, Fault: faulty.Fail})
		_, err := store.Put(t.Context(), "k", body(), object.PutOptions{})
		require.NoError(t, err, "nothing was read: it can be sent again")
		require.Equal(t, 2, broken.Count(faulty.Put))

		for _, rule := range []faulty.Rule{
			{Op: faulty.Put, At: 1, Fault: faulty.Truncate, Bytes: 4},
			{Op: faulty.Put, At: 1, Fault: faulty.LoseAnswer},
		} {
			store, broken, _ = setup(rule)
			_, err = store.Put(t.Context(), "k", body(), object.PutOptions{})
			require.ErrorIs(t, err, faulty.ErrFault)
			require.Equal(t, 1, broken.Count(faulty.Put))
		}
	})
}

func TestPutBodyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, broken, _ := setup()
		mine := errors.New("my own trouble")
		body := struct {
			io.Reader
			io.Seeker
		}{io.MultiReader(strings.NewReader("x"), iotest.ErrReader(mine)), strings.NewReader("x")}
		_, err := store.Put(t.Context(), "k", body, object.PutOptions{})
		require.ErrorIs(t, err, mine)
		require.Equal(t, 1, broken.Count(faulty.Put), "another try would not cure it")
	})
}

func TestLostAnswer(t *testing.T) {
	lost := faulty.Rule{Op: faulty.Put, Key: "k", At: 1, Fault: faulty.LoseAnswer}
	t.Run("IfAbsent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, broken, _ := setup(lost)
			info, err := put(t, store, "k", "ours", object.PutOptions{IfAbsent: true})
			require.NoError(t, err)
			require.Equal(t, 2, broken.Count(faulty.Put))
			stat, err := store.Stat(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, stat, info)
		})
	})
	t.Run("IfMatch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, broken, below := setup(lost)
			old, err := put(t, below, "k", "old", object.PutOptions{})
			require.NoError(t, err)
			info, err := put(t, store, "k", "ours", object.PutOptions{IfMatch: old.Version})
			require.NoError(t, err)
			require.NotEqual(t, old.Version, info.Version)
			require.Equal(t, 2, broken.Count(faulty.Put))
			_, err = put(t, store, "k", "next", object.PutOptions{IfMatch: info.Version})
			require.NoError(t, err, "the version is good to go on with")
		})
	})
	t.Run("never sent", func(t *testing.T) {
		for _, rule := range []faulty.Rule{{Op: faulty.Put, At: 1, Fault: faulty.Fail}, {Op: faulty.Put, At: 1, Fault: faulty.Truncate, Bytes: 3}} {
			synctest.Test(t, func(t *testing.T) {
				// Another writer puts the same bytes while we wait; our first
				// attempt cannot have been it.
				store, _, below := setup(rule)
				time.AfterFunc(time.Millisecond, func() { _, _ = put(t, below, "k", "ours", object.PutOptions{}) })
				_, err := put(t, store, "k", "ours", object.PutOptions{IfAbsent: true})
				require.ErrorIs(t, err, object.ErrExists)
			})
		}
	})
	for name, theirs := range map[string]string{
		"same size": "them", "shorter": "the", "longer": "others", "same beginning": "ours, they say", "empty": "",
	} {
		t.Run("somebody else's, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// The first attempt fails for good; while we wait, another writes.
				for _, opts := range []object.PutOptions{{IfAbsent: true}, {IfMatch: "1"}} {
					store, _, below := setup(faulty.Rule{Op: faulty.Put, At: 1, Fault: faulty.Truncate, Bytes: 4})
					if opts.IfMatch != "" {
						old, err := put(t, below, "k", "old", object.PutOptions{})
						require.NoError(t, err)
						opts.IfMatch = old.Version
					}
					time.AfterFunc(time.Millisecond, func() {
						_, _ = put(t, below, "k", theirs, object.PutOptions{})
					})
					_, err := put(t, store, "k", "ours", opts)
					if opts.IfAbsent {
						require.ErrorIs(t, err, object.ErrExists)
					} else {
						require.ErrorIs(t, err, object.ErrChanged)
					}
					require.Equal(t, theirs, read(t, below, "k", 0, -1))
				}
			})
		})
	}
	t.Run("and then deleted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, _, below := setup(lost)
			old, err := put(t, below, "k", "old", object.PutOptions{})
			require.NoError(t, err)
			time.AfterFunc(time.Millisecond, func() { _ = below.Delete(context.Background(), "k") }) //nolint:usetesting // outlives nothing
			_, err = put(t, store, "k", "ours", object.PutOptions{IfMatch: old.Version})
			require.ErrorIs(t, err, object.ErrChanged)
		})
	})
	t.Run("first attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, broken, below := setup()
			_, err := put(t, below, "k", "ours", object.PutOptions{})
			require.NoError(t, err)
			_, err = put(t, store, "k", "ours", object.PutOptions{IfAbsent: true})
			require.ErrorIs(t, err, object.ErrExists, "no answer was lost, so the same bytes are somebody else's")
			require.Equal(t, 1, broken.Count(""))
		})
	})
	t.Run("large, with a broken read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, _, _ := setup(lost, faulty.Rule{Op: faulty.Get, At: 1, Fault: faulty.Truncate, Bytes: 100_000})
			content := bytes.Repeat([]byte("0123456789abcde"), 50_000)
			_, err := store.Put(t.Context(), "k", bytes.NewReader(content), object.PutOptions{IfAbsent: true})
			require.NoError(t, err)
		})
	})
	t.Run("cannot be found out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, _, _ := setup(lost, faulty.Rule{Op: faulty.Stat, Fault: faulty.Deny})
			_, err := put(t, store, "k", "ours", object.PutOptions{IfAbsent: true})
			require.ErrorIs(t, err, object.ErrDenied)
			require.NotErrorIs(t, err, object.ErrExists)
		})
	})
}

func TestGetResumes(t *testing.T) {
	const content = "0123456789abcdefghij"
	for _, r := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, content}, {5, -1, content[5:]}, {5, 7, content[5:12]}, {5, 3, content[5:8]}, {0, 100, content}, {20, -1, ""}, {3, 0, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			// Every transfer breaks after 3 bytes: progress each time, so it goes
			// on as long as it takes.
			store, broken, below := setup(faulty.Rule{Op: faulty.Get, Fault: faulty.Truncate, Bytes: 3})
			_, err := put(t, below, "k", content, object.PutOptions{})
			require.NoError(t, err)
			if r.want == "" {
				broken.SetRules(faulty.Rule{Op: faulty.Get, At: 1, Fault: faulty.Truncate})
			} else if r.length < 0 || r.length > 20 {
				broken.SetRules(faulty.Rule{Op: faulty.Get, Every: 2, Fault: faulty.Truncate, Bytes: 3}, faulty.Rule{Op: faulty.Get, At: 1, Fault: faulty.Truncate, Bytes: 1})
			}
			require.Equal(t, r.want, read(t, store, "k", r.offset, r.length))
		})
	}
}

func TestGetBreaksForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _, below := setup(faulty.Rule{Op: faulty.Get, At: 1, Fault: faulty.Truncate, Bytes: 3})
		_, err := put(t, below, "k", "0123456789", object.PutOptions{})
		require.NoError(t, err)
		r, err := store.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		require.NoError(t, below.Delete(t.Context(), "k"))
		b, err := io.ReadAll(r)
		require.Equal(t, "012", string(b))
		require.ErrorIs(t, err, object.ErrNotFound)
		_, err = r.Read(make([]byte, 1))
		require.ErrorIs(t, err, object.ErrNotFound, "and stays so")
		require.NoError(t, r.Close())
	})
}

func TestListResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, broken, below := setup(faulty.Rule{Op: faulty.List, Fault: faulty.Truncate, Bytes: 2})
		for _, k := range []string{"a", "b", "c", "d", "e"} {
			_, err := put(t, below, k, "", object.PutOptions{})
			require.NoError(t, err)
		}
		var got []string
		err := store.List(t.Context(), "", object.ListOptions{After: "a"}, func(i object.Info) error {
			got = append(got, i.Key)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []string{"b", "c", "d", "e"}, got)
		require.Equal(t, 2, broken.Count(faulty.List))
	})
}

// hung does nothing until it is told to stop.
type hung struct{ object.Store }

func (hung) Stat(ctx context.Context, _ string) (object.Info, error) {
	<-ctx.Done()
	return object.Info{}, ctx.Err()
}

func (hung) Put(ctx context.Context, _ string, body io.Reader, _ object.PutOptions) (object.Info, error) {
	if _, err := io.Copy(io.Discard, body); err != nil {
		return object.Info{}, err
	}
	<-ctx.Done()
	return object.Info{}, ctx.Err()
}

func (hung) Get(ctx context.Context, _ string, _, _ int64) (io.ReadCloser, error) {
	return io.NopCloser(blocking{ctx}), nil
}

type blocking struct{ ctx context.Context }

func (b blocking) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

// drip is a body that takes an hour per byte.
type drip struct{ left int }

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Hour)
	d.left--
	p[0] = 'x'
	return 1, nil
}

func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := retry.New(hung{memory.New()}, retry.Options{Stall: time.Minute})
		began := time.Now()
		_, err := store.Stat(t.Context(), "k")
		require.ErrorContains(t, err, "the store does not respond for 1m0s")
		require.NotErrorIs(t, err, context.Canceled, "nobody cancelled")
		require.InDelta(t, 6, time.Since(began).Minutes(), 1)

		r, err := store.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		_, err = io.ReadAll(r)
		require.ErrorContains(t, err, "the store does not respond")
		require.NoError(t, r.Close())

		// The time that the body takes is not the store's.
		began = time.Now()
		_, err = store.Put(t.Context(), "k", &drip{left: 3}, object.PutOptions{})
		require.ErrorContains(t, err, "the store does not respond")
		require.NotErrorIs(t, err, context.Canceled)
		require.Equal(t, 3*time.Hour+time.Minute, time.Since(began))

		quick := retry.New(memory.New(), retry.Options{Stall: time.Minute})
		_, err = quick.Put(t.Context(), "k", &drip{left: 3}, object.PutOptions{})
		require.NoError(t, err)
		// Nor is the time between two reads, nor that of fn.
		r, err = quick.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Len(t, b, 3)
		require.NoError(t, r.Close())
		require.NoError(t, quick.List(t.Context(), "", object.ListOptions{}, func(object.Info) error {
			time.Sleep(time.Hour)
			return nil
		}))
	})
}
