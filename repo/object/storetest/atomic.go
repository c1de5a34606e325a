package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

// untouched runs a Put that must fail on three keys: an absent one, an absent
// one below a new directory, and one with content. It then checks that all is
// as it was, and that the keys can still be put.
func untouched(t *testing.T, store object.Store, failing func(key string, opts object.PutOptions)) {
	t.Helper()
	put(t, store, "old/key", "old content")
	failing("absent", object.PutOptions{})
	failing("new/dir/absent", object.PutOptions{IfAbsent: true})
	failing("old/key", object.PutOptions{})
	require.Equal(t, []string{"old/key"}, keys(t, store, "", ""))
	requireAbsent(t, store, "absent")
	requireAbsent(t, store, "new/dir/absent")
	require.Equal(t, "old content", get(t, store, "old/key"))
	for _, key := range []string{"absent", "new/dir/absent"} {
		_, err := store.Put(t.Context(), key, strings.NewReader("now"), object.PutOptions{IfAbsent: true})
		require.NoError(t, err)
		require.Equal(t, "now", get(t, store, key))
	}
}

// after calls do once, when n bytes of r were read, and goes on.
type after struct {
	io.Reader
	n  int64
	do func()
}

func (a *after) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if a.n -= int64(n); a.n <= 0 && a.do != nil {
		a.do()
		a.do = nil
	}
	return n, err
}

func (s suite) putCancelled(t *testing.T, store object.Store) {
	for _, size := range []int64{1000, s.large / 2} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			require.NoError(t, store.Delete(t.Context(), "absent", "new/dir/absent"))
			untouched(t, store, func(key string, opts object.PutOptions) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := store.Put(ctx, key, &after{stream(1, size), size / 2, cancel}, opts)
				require.ErrorIs(t, err, context.Canceled, key)
			})
		})
	}
}

func (s suite) putBodyFails(t *testing.T, store object.Store) {
	broken := errors.New("the disk under the body is broken")
	for _, size := range []int64{0, 1000, s.large / 2} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d,known=%v", size, known), func(t *testing.T) {
				require.NoError(t, store.Delete(t.Context(), "absent", "new/dir/absent"))
				untouched(t, store, func(key string, opts object.PutOptions) {
					if known {
						opts.Size = size * 2
					}
					body := io.MultiReader(stream(1, size), iotest.ErrReader(broken))
					_, err := store.Put(t.Context(), key, body, opts)
					require.ErrorIs(t, err, broken, key)
				})
			})
		}
	}
}

func (s suite) putWrongSize(t *testing.T, store object.Store) {
	for _, c := range []struct{ actual, said int64 }{
		{0, 1},
		{999, 1000},
		{1001, 1000},
		{3000, 1000},
		{s.large/2 - 1, s.large / 2},
		{s.large/2 + 1, s.large / 2},
		{s.large / 2, 100},
		{100, s.large / 2},
	} {
		for _, seekable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d instead of %d,seekable=%v", c.actual, c.said, seekable), func(t *testing.T) {
				require.NoError(t, store.Delete(t.Context(), "absent", "new/dir/absent"))
				untouched(t, store, func(key string, opts object.PutOptions) {
					opts.Size = c.said
					var body io.Reader = plain{stream(1, c.actual)}
					if seekable {
						body = bytes.NewReader(fill(1, int(c.actual)))
					}
					_, err := store.Put(t.Context(), key, body, opts)
					require.ErrorIs(t, err, object.ErrSize, key)
				})
			})
		}
	}
}

// watched notes a Read that comes after the Put returned.
type watched struct {
	io.Reader
	over, late atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	if w.over.Load() {
		w.late.Store(true)
	}
	return w.Reader.Read(p)
}

// putLeavesBodyAlone checks that no goroutine reads a body whose Put is over,
// however it ended. It can prove guilt only; run it with -race.
func (s suite) putLeavesBodyAlone(t *testing.T, store object.Store) {
	put(t, store, "taken", "x")
	for i, opts := range []object.PutOptions{{}, {IfAbsent: true}, {IfMatch: "no such version"}} {
		for _, size := range []int64{10, s.large / 2} {
			ctx, cancel := context.WithCancel(t.Context())
			body := &watched{Reader: &after{stream(1, size), size / 2, func() {
				if i == 0 {
					cancel()
				}
			}}}
			_, err := store.Put(ctx, "taken", body, opts)
			body.over.Store(true)
			cancel()
			require.Error(t, err)
			require.False(t, body.late.Load())
			require.Equal(t, "x", get(t, store, "taken"))
			require.False(t, body.late.Load(), "the body was read after Put returned")
		}
	}
}

func (s suite) putSeeker(t *testing.T, store object.Store) {
	// Put begins where the body stands, not at its start.
	body := strings.NewReader("skipped,stored")
	_, err := body.Seek(8, io.SeekStart)
	require.NoError(t, err)
	info, err := store.Put(t.Context(), "k", body, object.PutOptions{Size: 6})
	require.NoError(t, err)
	require.Equal(t, int64(6), info.Size)
	require.Equal(t, "stored", get(t, store, "k"))

	_, err = body.Seek(8, io.SeekStart)
	require.NoError(t, err)
	_, err = store.Put(t.Context(), "unknown", body, object.PutOptions{})
	require.NoError(t, err)
	require.Equal(t, "stored", get(t, store, "unknown"))
}

func (s suite) putSmallReads(t *testing.T, store object.Store) {
	content := fill(3, 100_000)
	for name, slow := range map[string]func(io.Reader) io.Reader{
		"one": iotest.OneByteReader, "half": iotest.HalfReader, "eof": iotest.DataErrReader,
	} {
		for _, size := range []int64{0, int64(len(content))} {
			_, err := store.Put(t.Context(), name, slow(bytes.NewReader(content)), object.PutOptions{Size: size})
			require.NoError(t, err)
			got, err := read(t.Context(), store, name, 0, -1)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, got), name)
		}
	}
}

func (s suite) largeObject(t *testing.T, store object.Store) {
	want := sha256.New()
	// An odd size, so that the last part is not a whole one.
	size := s.large + 4711
	info, err := store.Put(t.Context(), "large", plain{io.TeeReader(stream(7, size), want)}, object.PutOptions{})
	require.NoError(t, err)
	require.Equal(t, size, info.Size)
	stat, err := store.Stat(t.Context(), "large")
	require.NoError(t, err)
	require.Equal(t, size, stat.Size)
	require.Equal(t, info.Version, stat.Version)

	r, err := store.Get(t.Context(), "large", 0, -1)
	require.NoError(t, err)
	got := sha256.New()
	n, err := io.Copy(got, r)
	require.NoError(t, errors.Join(err, r.Close()))
	require.Equal(t, size, n)
	require.Equal(t, want.Sum(nil), got.Sum(nil))

	// The known size, and ranges across whatever the part size is.
	whole := fill(8, int(size))
	_, err = store.Put(t.Context(), "large", bytes.NewReader(whole), object.PutOptions{Size: size})
	require.NoError(t, err)
	for _, r := range [][2]int64{{0, 1}, {size - 1, 1}, {size - 100, 1000}, {5<<20 - 1, 2}, {8<<20 - 3, 7}, {1<<20 + 1, 20 << 20}} {
		b, err := read(t.Context(), store, "large", r[0], r[1])
		require.NoError(t, err)
		require.True(t, bytes.Equal(whole[r[0]:min(r[0]+r[1], size)], b), "range %v", r)
	}
}

func (s suite) concurrentPuts(t *testing.T, store object.Store) {
	const each = 10
	errs := make([]error, s.racers)
	var running sync.WaitGroup
	for w := range s.racers {
		running.Go(func() {
			for i := range each {
				key := fmt.Sprintf("d%d/k%d/%d", i%3, i, w)
				content := fill(uint64(w*1000+i), 10_000+w)
				if _, errs[w] = store.Put(t.Context(), key, bytes.NewReader(content), object.PutOptions{IfAbsent: true}); errs[w] != nil {
					return
				}
				got, err := read(t.Context(), store, key, 0, -1)
				if err == nil && !bytes.Equal(content, got) {
					err = fmt.Errorf("%s: other bytes come back", key)
				}
				if errs[w] = err; err != nil {
					return
				}
			}
		})
	}
	running.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, keys(t, store, "", ""), s.racers*each)
}

// putsBesideDeletes puts into directories that others keep emptying.
func (s suite) putsBesideDeletes(t *testing.T, store object.Store) {
	errs := make([]error, s.racers)
	var running sync.WaitGroup
	for w := range s.racers {
		running.Go(func() {
			for i := range 20 {
				key := fmt.Sprintf("shared/%d/%d", i%2, w)
				_, err := store.Put(t.Context(), key, strings.NewReader(key), object.PutOptions{IfAbsent: true})
				if err != nil {
					errs[w] = err
					return
				}
				b, err := read(t.Context(), store, key, 0, -1)
				if err == nil && string(b) != key {
					err = fmt.Errorf("%s holds %q", key, b)
				}
				if errs[w] = errors.Join(err, store.Delete(t.Context(), key)); errs[w] != nil {
					return
				}
			}
		})
	}
	running.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Empty(t, keys(t, store, "", ""))
}

// atomicOverwrite reads a key that is overwritten all the time: each time the
// size that Stat names and the first bytes must be those of one content.
func (s suite) atomicOverwrite(t *testing.T, store object.Store) {
	content := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 1000) }
	put(t, store, "k", content(0))
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	var wrote error
	writing.Go(func() {
		for i := 1; ctx.Err() == nil && wrote == nil; i++ {
			_, wrote = store.Put(t.Context(), "k", strings.NewReader(content(i)), object.PutOptions{})
		}
	})
	defer writing.Wait()
	defer stop()
	for range 50 {
		b, err := read(t.Context(), store, "k", 0, -1)
		require.NoError(t, err)
		require.Len(t, b, 1000)
		require.Equal(t, strings.Repeat(string(b[:1]), 1000), string(b))
	}
	stop()
	writing.Wait()
	require.NoError(t, wrote)
}

func (s suite) getBesideDelete(t *testing.T, store object.Store) {
	put(t, store, "other", "x")
	for range 5 {
		_, err := store.Put(t.Context(), "k", bytes.NewReader(fill(1, 4<<20)), object.PutOptions{})
		require.NoError(t, err)
		r, err := store.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		first := make([]byte, 10)
		_, err = io.ReadFull(r, first)
		require.NoError(t, err)
		require.NoError(t, store.Delete(t.Context(), "k", "other"))
		// The rest may come or fail; a short answer without an error may not be.
		rest, err := io.ReadAll(r)
		if err == nil {
			require.True(t, bytes.Equal(fill(1, 4<<20), append(first, rest...)))
		}
		require.NoError(t, r.Close())
		requireAbsent(t, store, "k")
	}
}

func (s suite) getCancelled(t *testing.T, store object.Store) {
	_, err := store.Put(t.Context(), "k", stream(1, s.large/2), object.PutOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := store.Get(ctx, "k", 0, -1)
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, r, 1000)
	require.NoError(t, err)
	cancel()
	// What is on its way may still arrive, but the end may not.
	n, err := io.Copy(io.Discard, r)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, n, s.large/2-1000)
	_ = r.Close()
}

func (s suite) cancelledFromTheStart(t *testing.T, store object.Store) {
	put(t, store, "k", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := store.Put(ctx, "new", strings.NewReader("x"), object.PutOptions{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = store.Get(ctx, "k", 0, -1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = store.Stat(ctx, "k")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, store.Delete(ctx, "k"), context.Canceled)
	err = store.List(ctx, "", object.ListOptions{}, func(object.Info) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"k"}, keys(t, store, "", ""))
}
