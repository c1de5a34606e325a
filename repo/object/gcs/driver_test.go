package gcs_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/gcs"
)

const mebibyte = 1 << 20

// unsized hides everything but Read, as a pipe does.
type unsized struct{ io.Reader }

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func read(t *testing.T, s object.Store, key string) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return b
}

// proxied opens a store through a proxy that breaks requests as fault says.
func proxied(t *testing.T, fault func(*http.Request) stores.Fault) object.Store {
	t.Helper()
	proxy, err := stores.NewProxy(server.URL, fault)
	require.NoError(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	return open(t, func(o *gcs.Options) { o.Endpoint = proxy.URL })
}

func TestBrokenDownload(t *testing.T) {
	store := proxied(t, func(r *http.Request) stores.Fault {
		return stores.Fault{Cut: r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "alt=media")}
	})
	_, err := store.Put(t.Context(), "key", bytes.NewReader(noise(mebibyte)), object.PutOptions{})
	require.NoError(t, err)
	for _, length := range []int64{-1, 300_000} {
		r, err := store.Get(t.Context(), "key", 1000, length)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, r)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NoError(t, r.Close())
	}
}

// What the store says about waiting reaches package retry, after a bounded
// number of tries.
func TestThrottling(t *testing.T) {
	var requests atomic.Int32
	store := proxied(t, func(*http.Request) stores.Fault {
		requests.Add(1)
		return stores.Fault{Status: http.StatusServiceUnavailable, Header: map[string]string{"Retry-After": "1"}}
	})
	_, err := store.Get(t.Context(), "key", 0, -1)
	after, throttled := object.RetryAfter(err)
	require.True(t, throttled, "%v", err)
	require.Equal(t, time.Second, after)
	require.False(t, object.IsPermanent(err))
	require.EqualValues(t, 3, requests.Load())
}

// A request that was carried out but whose answer was lost is repeated by the
// SDK, finds the key taken, and must not be mistaken for a lost race.
func TestLostAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		size int
		last func(*http.Request) bool
	}{
		"one request": {100, func(r *http.Request) bool { return r.URL.Query().Get("uploadType") == "multipart" }},
		"several chunks": {3 * mebibyte, func(r *http.Request) bool {
			span := r.Header.Get("Content-Range")
			return span != "" && !strings.HasSuffix(span, "/*")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var lost atomic.Bool
			proxy, err := stores.NewProxy(server.URL, func(r *http.Request) stores.Fault {
				return stores.Fault{Drop: c.last(r) && lost.CompareAndSwap(false, true)}
			})
			require.NoError(t, err)
			defer proxy.Close()
			store := open(t, func(o *gcs.Options) { o.Endpoint, o.ChunkSize = proxy.URL, mebibyte })
			body := noise(c.size)
			put := func(opts object.PutOptions) (object.Info, error) {
				lost.Store(false)
				return store.Put(t.Context(), "key", unsized{bytes.NewReader(body)}, opts)
			}
			info, err := put(object.PutOptions{IfAbsent: true})
			if c.size > mebibyte {
				// The emulator has forgotten the upload session and answers 404,
				// where Google would tell what became of it.
				require.Error(t, err)
				require.False(t, object.IsPermanent(err), "%v", err)
				require.NotErrorIs(t, err, object.ErrExists)
				require.True(t, lost.Load())
				require.True(t, bytes.Equal(body, read(t, store, "key")))
				return
			}
			require.NoError(t, err)
			require.True(t, lost.Load())
			_, err = put(object.PutOptions{IfAbsent: true})
			require.ErrorIs(t, err, object.ErrExists)
			body[0]++
			_, err = put(object.PutOptions{IfMatch: info.Version})
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, read(t, store, "key")))
		})
	}
}

// An upload that the store turns away for a while goes on; one that is turned
// away for good ends.
func TestUploadsAreRepeated(t *testing.T) {
	var times, turnedAway atomic.Int32
	proxy, err := stores.NewProxy(server.URL, func(r *http.Request) stores.Fault {
		if r.URL.Query().Get("uploadType") == "multipart" && turnedAway.Add(1) <= times.Load() {
			return stores.Fault{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "3"}}
		}
		return stores.Fault{}
	})
	require.NoError(t, err)
	defer proxy.Close()
	store := open(t, func(o *gcs.Options) { o.Endpoint = proxy.URL })
	times.Store(2)
	_, err = store.Put(t.Context(), "key", unsized{strings.NewReader("hello")}, object.PutOptions{})
	require.NoError(t, err)
	times.Store(1000)
	turnedAway.Store(0)
	_, err = store.Put(t.Context(), "key", unsized{strings.NewReader("good bye")}, object.PutOptions{})
	after, throttled := object.RetryAfter(err)
	require.True(t, throttled, "%v", err)
	require.Equal(t, 3*time.Second, after)
	require.EqualValues(t, 5, turnedAway.Load())
	require.Equal(t, "hello", string(read(t, store, "key")))
}

// What was damaged on its way is refused, and not kept.
func TestDamagedUpload(t *testing.T) {
	for name, size := range map[string]int{"one request": 100_000, "several chunks": 3 * mebibyte} {
		t.Run(name, func(t *testing.T) {
			proxy, err := stores.NewProxy(server.URL, func(r *http.Request) stores.Fault {
				kind := r.URL.Query().Get("uploadType")
				if r.Method == http.MethodPost && (kind == "multipart" || r.Header.Get("Content-Range") != "") {
					r.Body = io.NopCloser(&flip{Reader: r.Body, at: 70_000})
				}
				return stores.Fault{}
			})
			require.NoError(t, err)
			defer proxy.Close()
			store := open(t, func(o *gcs.Options) { o.Endpoint, o.ChunkSize = proxy.URL, mebibyte })
			_, err = store.Put(t.Context(), "key", unsized{bytes.NewReader(noise(size))}, object.PutOptions{})
			require.Error(t, err)
			_, err = store.Stat(t.Context(), "key")
			require.ErrorIs(t, err, object.ErrNotFound)
		})
	}
}

// flip changes one byte.
type flip struct {
	io.Reader
	at int
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if f.at >= 0 && f.at < n {
		p[f.at] ^= 1
	}
	f.at -= n
	return n, err
}

// A missing bucket is never taken for a missing key. (A Put would create it:
// so the emulator does, unlike Google.)
func TestNoBucket(t *testing.T) {
	store := open(t, func(o *gcs.Options) { o.Bucket = "walkeep-no-such-bucket" })
	ctx := t.Context()
	_, statErr := store.Stat(ctx, "key")
	_, getErr := store.Get(ctx, "key", 0, -1)
	_, rangeErr := store.Get(ctx, "key", 5, 0)
	listErr := store.List(ctx, "", object.ListOptions{}, func(object.Info) error { return nil })
	deleteErr := store.Delete(ctx, "a", "b")
	for i, err := range []error{statErr, getErr, rangeErr, listErr, deleteErr} {
		require.ErrorContains(t, err, "bucket does not exist", i)
		require.NotErrorIs(t, err, object.ErrNotFound, i)
		require.True(t, object.IsPermanent(err), i)
	}
}

func TestDenied(t *testing.T) {
	store := proxied(t, func(*http.Request) stores.Fault { return stores.Fault{Status: http.StatusForbidden} })
	_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, object.ErrDenied)
	_, err = store.Stat(t.Context(), "key")
	require.ErrorIs(t, err, object.ErrDenied)
	require.ErrorIs(t, store.List(t.Context(), "", object.ListOptions{}, nil), object.ErrDenied)
	require.ErrorIs(t, store.Delete(t.Context(), "key"), object.ErrDenied)
}

// A version that no Put can have returned is not the current one.
func TestForeignVersion(t *testing.T) {
	store := open(t)
	for _, version := range []string{"x", "0", "-1", `"etag"`} {
		_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{IfMatch: version})
		require.ErrorIs(t, err, object.ErrChanged)
	}
}

func TestCustomCA(t *testing.T) {
	server := stores.Run(t, stores.StartGCS, stores.Options{TLS: true})
	opts := server.Options(stores.Bucket(t, server))
	use := func() error {
		store, err := gcs.New(t.Context(), opts)
		require.NoError(t, err)
		defer store.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = store.Put(ctx, "key", strings.NewReader("x"), object.PutOptions{})
		return err
	}
	require.NoError(t, use())
	opts.CAFile = ""
	err := use()
	require.ErrorContains(t, err, "certificate")
	require.True(t, object.IsPermanent(err))
}

// New refuses what cannot work.
func TestNew(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, os.WriteFile(broken, []byte(`{"type":"service_account","private_key":"hush"`), 0o600))
	for want, change := range map[string]func(*gcs.Options){
		"no bucket":        func(o *gcs.Options) { o.Bucket = "" },
		"exclude":          func(o *gcs.Options) { o.CredentialsFile = "f" },
		"chunk size":       func(o *gcs.Options) { o.ChunkSize = 1000 },
		"read CA file":     func(o *gcs.Options) { o.CAFile = "/no/such/file" },
		"http or https":    func(o *gcs.Options) { o.Endpoint = "ftp://host" },
		"credentials file": func(o *gcs.Options) { o.NoAuth, o.CredentialsFile = false, "/no/such/file" },
		"find Google":      func(o *gcs.Options) { o.NoAuth, o.CredentialsFile = false, broken },
	} {
		opts := gcs.Options{Bucket: "b", NoAuth: true}
		change(&opts)
		_, err := gcs.New(t.Context(), opts)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hush")
	}
	// The default chain is asked when the first request needs it.
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", broken)
	store, err := gcs.New(t.Context(), gcs.Options{Bucket: "b"})
	require.NoError(t, err)
	_, err = store.Stat(t.Context(), "key")
	require.ErrorContains(t, err, "find Google credentials")
	require.True(t, object.IsPermanent(err))
}
