package azure_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/azure"
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
	return open(t, func(o *azure.Options) { o.Endpoint, o.BlockSize = proxy.URL, mebibyte })
}

func TestBrokenDownload(t *testing.T) {
	store := proxied(t, func(r *http.Request) stores.Fault {
		return stores.Fault{Cut: r.Method == http.MethodGet}
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
		lose func(*http.Request) bool
	}{
		"Put Blob":       {100, func(r *http.Request) bool { return r.Method == http.MethodPut }},
		"Put Block List": {3 * mebibyte, func(r *http.Request) bool { return r.URL.Query().Get("comp") == "blocklist" }},
		"Put Block":      {3 * mebibyte, func(r *http.Request) bool { return r.URL.Query().Get("comp") == "block" }},
	} {
		t.Run(name, func(t *testing.T) {
			var lost atomic.Bool
			store := proxied(t, func(r *http.Request) stores.Fault {
				return stores.Fault{Drop: c.lose(r) && lost.CompareAndSwap(false, true)}
			})
			body := noise(c.size)
			put := func(opts object.PutOptions) (object.Info, error) {
				lost.Store(false)
				return store.Put(t.Context(), "key", unsized{bytes.NewReader(body)}, opts)
			}
			info, err := put(object.PutOptions{IfAbsent: true})
			require.NoError(t, err)
			require.True(t, lost.Load())
			_, err = put(object.PutOptions{IfAbsent: true})
			require.ErrorIs(t, err, object.ErrExists)
			body[0]++
			again, err := put(object.PutOptions{IfMatch: info.Version})
			require.NoError(t, err)
			require.NotEqual(t, info.Version, again.Version)
			require.True(t, bytes.Equal(body, read(t, store, "key")))
		})
	}
}

// Blocks that a failed upload has left do not take the name, whatever the
// emulator says (see the package comment).
func TestStagedBlocksAreNoBlob(t *testing.T) {
	staged := make(chan struct{})
	var blocks atomic.Int32
	store := proxied(t, func(r *http.Request) stores.Fault {
		if r.URL.Query().Get("comp") == "block" && blocks.Add(1) == 3 {
			close(staged) // two are stored, or about to be
		}
		return stores.Fault{}
	})
	broken := errors.New("broken")
	slow := readerFunc(func([]byte) (int, error) { <-staged; time.Sleep(200 * time.Millisecond); return 0, broken })
	_, err := store.Put(t.Context(), "key", io.MultiReader(bytes.NewReader(noise(3*mebibyte+10)), slow), object.PutOptions{})
	require.ErrorIs(t, err, broken)
	_, err = store.Stat(t.Context(), "key")
	require.ErrorIs(t, err, object.ErrNotFound)
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		t.Errorf("%s is listed", i.Key)
		return nil
	}))
	_, err = store.Put(t.Context(), "key", unsized{strings.NewReader("hello")}, object.PutOptions{IfAbsent: true})
	require.NoError(t, err)
	require.Equal(t, "hello", string(read(t, store, "key")))
	_, err = store.Put(t.Context(), "key", unsized{strings.NewReader("other")}, object.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, object.ErrExists)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What was damaged on its way is refused by the store.
func TestDamagedUpload(t *testing.T) {
	for name, size := range map[string]int{"one request": 1000, "blocks": 2 * mebibyte} {
		t.Run(name, func(t *testing.T) {
			store := proxied(t, func(r *http.Request) stores.Fault {
				if r.Method == http.MethodPut && r.URL.Query().Get("comp") != "blocklist" {
					r.Body = io.NopCloser(io.MultiReader(strings.NewReader("~"), skip(r.Body)))
				}
				return stores.Fault{}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			_, err := store.Put(ctx, "key", unsized{bytes.NewReader(noise(size))}, object.PutOptions{})
			require.Error(t, err)
			_, err = store.Stat(t.Context(), "key")
			require.ErrorIs(t, err, object.ErrNotFound)
		})
	}
}

// skip drops the first byte.
func skip(r io.Reader) io.Reader {
	_, _ = io.CopyN(io.Discard, r, 1)
	return iotest.HalfReader(r)
}

// A batch deletes; where it is refused, keys go one by one.
func TestDelete(t *testing.T) {
	var refuse atomic.Bool
	var batches, singles atomic.Int32
	store := proxied(t, func(r *http.Request) stores.Fault {
		switch {
		case r.Method == http.MethodDelete:
			singles.Add(1)
		case r.URL.Query().Get("comp") == "batch":
			batches.Add(1)
			if refuse.Load() {
				return stores.Fault{Status: http.StatusBadRequest}
			}
		}
		return stores.Fault{}
	})
	try := func() {
		t.Helper()
		batches.Store(0)
		singles.Store(0)
		for _, key := range []string{"a", "b", "c"} {
			_, err := store.Put(t.Context(), key, strings.NewReader("x"), object.PutOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, store.Delete(t.Context(), "a", "none", "b"))
		_, err := store.Stat(t.Context(), "a")
		require.ErrorIs(t, err, object.ErrNotFound)
		require.Equal(t, "x", string(read(t, store, "c")))
	}
	try()
	require.EqualValues(t, 1, batches.Load())
	require.Zero(t, singles.Load())
	refuse.Store(true)
	try()
	require.EqualValues(t, 3, singles.Load())
	try()
	require.Zero(t, batches.Load(), "asked once only")
	require.ErrorIs(t, store.Delete(t.Context(), "../a", "c"), object.ErrBadKey)
	_, err := store.Stat(t.Context(), "c")
	require.ErrorIs(t, err, object.ErrNotFound)
}

// A missing container is never taken for a missing key.
func TestNoContainer(t *testing.T) {
	store := open(t, func(o *azure.Options) { o.Container = "walkeep-no-such-container" })
	ctx := t.Context()
	_, statErr := store.Stat(ctx, "key")
	_, getErr := store.Get(ctx, "key", 0, -1)
	_, rangeErr := store.Get(ctx, "key", 5, 0)
	_, putErr := store.Put(ctx, "key", strings.NewReader("x"), object.PutOptions{})
	_, absentErr := store.Put(ctx, "key", strings.NewReader("x"), object.PutOptions{IfAbsent: true})
	_, matchErr := store.Put(ctx, "key", strings.NewReader("x"), object.PutOptions{IfMatch: `"0"`})
	listErr := store.List(ctx, "", object.ListOptions{}, func(object.Info) error { return nil })
	deleteErr := store.Delete(ctx, "a", "b")
	for i, err := range []error{statErr, getErr, rangeErr, putErr, absentErr, matchErr, listErr, deleteErr} {
		require.ErrorContains(t, err, "container does not exist", i)
		require.NotErrorIs(t, err, object.ErrNotFound, i)
		require.True(t, object.IsPermanent(err), i)
	}
}

func TestDenied(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(wrong, []byte("bm9uc2Vuc2U=\n"), 0o600))
	store := open(t, func(o *azure.Options) { o.KeyFile = wrong })
	_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, object.ErrDenied)
	_, err = store.Stat(t.Context(), "key")
	require.ErrorIs(t, err, object.ErrDenied)
	require.ErrorIs(t, store.Delete(t.Context(), "a", "b"), object.ErrDenied)
}

// A shared access signature is enough for everything, batches included, and
// never shows in an error.
func TestSAS(t *testing.T) {
	key, err := os.ReadFile(server.KeyFile)
	require.NoError(t, err)
	cred, err := container.NewSharedKeyCredential(server.Account, strings.TrimSpace(string(key)))
	require.NoError(t, err)
	name := stores.Bucket(t, server)
	signed, err := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPSandHTTP, StartTime: time.Now().Add(-time.Hour), ExpiryTime: time.Now().Add(time.Hour),
		ContainerName: name, Permissions: (&sas.ContainerPermissions{Read: true, Create: true, Write: true, Delete: true, List: true}).String(),
	}.SignWithSharedKey(cred)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sas")
	require.NoError(t, os.WriteFile(file, []byte("?"+signed.Encode()+"\n"), 0o600))
	opts := server.Options(name)
	opts.KeyFile, opts.SASFile, opts.BlockSize = "", file, mebibyte
	store, err := azure.New(t.Context(), opts)
	require.NoError(t, err)
	defer store.Close()
	for key, size := range map[string]int{"small": 10, "large": 2*mebibyte + 1} {
		_, err := store.Put(t.Context(), key, unsized{bytes.NewReader(noise(size))}, object.PutOptions{IfAbsent: true})
		require.NoError(t, err)
		require.True(t, bytes.Equal(noise(size), read(t, store, key)))
	}
	require.NoError(t, store.Delete(t.Context(), "small", "large"))
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		t.Errorf("%s is still there", i.Key)
		return nil
	}))

	opts.Endpoint = "http://127.0.0.1:1"
	nobody, err := azure.New(t.Context(), opts)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = nobody.Stat(ctx, "key")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "sig=")
	require.NotContains(t, nobody.String(), "sig=")
}

// New refuses what cannot work, and does not repeat secrets.
func TestNew(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(broken, []byte("hush!"), 0o600))
	for want, change := range map[string]func(*azure.Options){
		"no container":      func(o *azure.Options) { o.Container = "" },
		"no account":        func(o *azure.Options) { o.Account = "" },
		"exclude":           func(o *azure.Options) { o.SASFile = "f" },
		"block size":        func(o *azure.Options) { o.BlockSize = 1 },
		"blocks in flight":  func(o *azure.Options) { o.BlocksInFlight = -1 },
		"read CA file":      func(o *azure.Options) { o.CAFile = "/no/such/file" },
		"http or https":     func(o *azure.Options) { o.Endpoint = "ftp://host" },
		"read secret":       func(o *azure.Options) { o.KeyFile = "/no/such/file" },
		"not a base64":      func(o *azure.Options) { o.KeyFile = broken },
		"not a shared acce": func(o *azure.Options) { o.KeyFile, o.SASFile = "", broken },
	} {
		opts := server.Options("c")
		change(&opts)
		_, err := azure.New(t.Context(), opts)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hush")
	}
	store, err := azure.New(t.Context(), azure.Options{Container: "c", Account: "hippo"})
	require.NoError(t, err)
	require.Equal(t, "azure://hippo/c", store.String())
}
