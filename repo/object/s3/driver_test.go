package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/s3"
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
	return open(t, func(o *s3.Options) { o.Endpoint = proxy.URL })
}

// The conditions hold on CompleteMultipartUpload as on PutObject: neither a
// body of one part nor one of several replaces what another writer stored.
func TestConditionsOnMultipart(t *testing.T) {
	store := open(t, func(o *s3.Options) { o.PartSize = 5 * mebibyte })
	for name, size := range map[string]int{"one part": 100, "three parts": 11 * mebibyte} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			key := strings.ReplaceAll(name, " ", "-")
			body := noise(size)
			first, err := store.Put(ctx, key, unsized{bytes.NewReader(body)}, object.PutOptions{IfAbsent: true})
			require.NoError(t, err)
			require.EqualValues(t, size, first.Size)
			stat, err := store.Stat(ctx, key)
			require.NoError(t, err)
			require.Equal(t, first.Version, stat.Version)

			other := append([]byte("x"), body...)
			_, err = store.Put(ctx, key, unsized{bytes.NewReader(other)}, object.PutOptions{IfAbsent: true})
			require.ErrorIs(t, err, object.ErrExists)
			_, err = store.Put(ctx, key, unsized{bytes.NewReader(other)}, object.PutOptions{IfMatch: `"00000000000000000000000000000000"`})
			require.ErrorIs(t, err, object.ErrChanged)
			_, err = store.Put(ctx, "gone", unsized{bytes.NewReader(other)}, object.PutOptions{IfMatch: first.Version})
			require.ErrorIs(t, err, object.ErrChanged)
			require.True(t, bytes.Equal(body, read(t, store, key)))
			second, err := store.Put(ctx, key, unsized{bytes.NewReader(other)}, object.PutOptions{IfMatch: first.Version})
			require.NoError(t, err)
			require.NotEqual(t, first.Version, second.Version)
			require.True(t, bytes.Equal(other, read(t, store, key)))
		})
	}
	require.Empty(t, s3.Uploads(t, store), "failed uploads are aborted")
}

// Of many multipart uploads that complete at once one wins, whatever the
// order in which they reach the server.
func TestRaceOfMultipartUploads(t *testing.T) {
	store := open(t, func(o *s3.Options) { o.PartSize = 5 * mebibyte })
	for round := range 3 {
		key := fmt.Sprintf("key%d", round)
		var wins atomic.Int32
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, 6*mebibyte)
				_, err := store.Put(t.Context(), key, unsized{bytes.NewReader(body)}, object.PutOptions{IfAbsent: true})
				if err == nil {
					wins.Add(1)
				} else if !errors.Is(err, object.ErrExists) {
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		group.Wait()
		require.EqualValues(t, 1, wins.Load())
		b := read(t, store, key)
		require.Equal(t, bytes.Repeat(b[:1], 6*mebibyte), b)
	}
	require.Empty(t, s3.Uploads(t, store))
}

// A request that was carried out but whose answer was lost is repeated by the
// SDK, finds the key taken, and must not be mistaken for a lost race.
func TestLostAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		size int
		lose func(*http.Request) bool
	}{
		"PutObject": {100, func(r *http.Request) bool { return r.Method == http.MethodPut }},
		"CompleteMultipartUpload": {11 * mebibyte, func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.URL.Query().Get("uploadId") != ""
		}},
		"UploadPart": {11 * mebibyte, func(r *http.Request) bool { return r.URL.Query().Get("partNumber") == "2" }},
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
			body[0]++
			_, err = put(object.PutOptions{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, read(t, store, "key")))
			require.Empty(t, s3.Uploads(t, store))
		})
	}
}

func TestBrokenDownload(t *testing.T) {
	store := proxied(t, func(r *http.Request) stores.Fault { return stores.Fault{Cut: r.Method == http.MethodGet} })
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
		return stores.Fault{
			Status: http.StatusServiceUnavailable, Header: map[string]string{"Retry-After": "7", "Content-Type": "application/xml"},
			Body: `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`,
		}
	})
	_, err := store.Get(t.Context(), "key", 0, -1)
	after, throttled := object.RetryAfter(err)
	require.True(t, throttled, "%v", err)
	require.Equal(t, 7*time.Second, after)
	require.False(t, object.IsPermanent(err))
	require.EqualValues(t, 3, requests.Load())
}

// A part that the store turns away a few times does not fail the upload.
func TestPartsAreRepeated(t *testing.T) {
	var turnedAway atomic.Int32
	store := proxied(t, func(r *http.Request) stores.Fault {
		if r.URL.Query().Get("partNumber") == "1" && turnedAway.Add(1) <= 2 {
			return stores.Fault{Status: http.StatusServiceUnavailable}
		}
		return stores.Fault{}
	})
	body := noise(9 * mebibyte)
	_, err := store.Put(t.Context(), "key", unsized{bytes.NewReader(body)}, object.PutOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 3, turnedAway.Load())
	require.True(t, bytes.Equal(body, read(t, store, "key")))
}

// A missing bucket is never taken for a missing key.
func TestNoBucket(t *testing.T) {
	store := open(t, func(o *s3.Options) { o.Bucket = "walkeep-no-such-bucket" })
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
		require.ErrorContains(t, err, "bucket does not exist", i)
		require.NotErrorIs(t, err, object.ErrNotFound, i)
		require.True(t, object.IsPermanent(err), i)
	}
}

func TestDenied(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(wrong, []byte("nonsense\n"), 0o600))
	store := open(t, func(o *s3.Options) { o.SecretKeyFile = wrong })
	_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{})
	require.ErrorIs(t, err, object.ErrDenied)
	_, err = store.Stat(t.Context(), "key")
	require.ErrorIs(t, err, object.ErrDenied)
	require.NotContains(t, err.Error(), "nonsense")
	require.ErrorIs(t, store.List(t.Context(), "", object.ListOptions{}, nil), object.ErrDenied)
}

// Every way to sign in that needs no cloud.
func TestCredentials(t *testing.T) {
	key, err := os.ReadFile(server.AccessKeyFile)
	require.NoError(t, err)
	secret, err := os.ReadFile(server.SecretKeyFile)
	require.NoError(t, err)
	access, password := strings.TrimSpace(string(key)), strings.TrimSpace(string(secret))
	ini := filepath.Join(t.TempDir(), "credentials")
	section := "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n"
	content := fmt.Sprintf(section, "default", "wrong", "wrong") + fmt.Sprintf(section, "backup", access, password)
	require.NoError(t, os.WriteFile(ini, []byte(content), 0o600))
	try := func(t *testing.T, change func(*s3.Options)) {
		t.Helper()
		store := open(t, func(o *s3.Options) {
			o.AccessKeyFile, o.SecretKeyFile, o.Region = "", "", ""
			change(o)
		})
		_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{})
		require.NoError(t, err)
	}
	t.Run("profile", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "ignored")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "ignored")
		try(t, func(o *s3.Options) { o.CredentialsFile, o.Profile = ini, "backup" })
	})
	t.Run("AWS_PROFILE", func(t *testing.T) {
		t.Setenv("AWS_PROFILE", "backup")
		try(t, func(o *s3.Options) { o.CredentialsFile = ini })
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", access)
		t.Setenv("AWS_SECRET_ACCESS_KEY", password)
		try(t, func(*s3.Options) {})
	})
}

// Batch delete tells which keys it could not delete.
func TestDeleteReportsEachKey(t *testing.T) {
	store := proxied(t, func(r *http.Request) stores.Fault {
		if !r.URL.Query().Has("delete") {
			return stores.Fault{}
		}
		return stores.Fault{
			Status: http.StatusOK, Header: map[string]string{"Content-Type": "application/xml"},
			Body: `<?xml version="1.0"?><DeleteResult>
				<Error><Key>a</Key><Code>AccessDenied</Code><Message>locked</Message></Error>
				<Error><Key>b</Key><Code>NoSuchKey</Code></Error>
				<Error><Key>c</Key><Code>InternalError</Code><Message>broken</Message></Error></DeleteResult>`,
		}
	})
	err := store.Delete(t.Context(), "a", "b", "c", "d", "../e")
	require.ErrorIs(t, err, object.ErrDenied)
	require.ErrorIs(t, err, object.ErrBadKey)
	require.ErrorContains(t, err, "delete a in")
	require.ErrorContains(t, err, "delete c in")
	require.NotContains(t, err.Error(), "delete b in")
}

// A store without DeleteObjects is asked once, then key by key.
func TestDeleteWithoutBatch(t *testing.T) {
	var batches atomic.Int32
	store := proxied(t, func(r *http.Request) stores.Fault {
		if !r.URL.Query().Has("delete") {
			return stores.Fault{}
		}
		batches.Add(1)
		return stores.Fault{Status: http.StatusNotImplemented}
	})
	for range 2 {
		for _, key := range []string{"a", "b", "c"} {
			_, err := store.Put(t.Context(), key, strings.NewReader("x"), object.PutOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, store.Delete(t.Context(), "a", "b", "none"))
		_, err := store.Stat(t.Context(), "a")
		require.ErrorIs(t, err, object.ErrNotFound)
		_, err = store.Stat(t.Context(), "c")
		require.NoError(t, err)
	}
	require.LessOrEqual(t, batches.Load(), int32(3))
}

// Conditions that a store does not know are an error, not a silent overwrite.
func TestConditionsNotImplemented(t *testing.T) {
	store := proxied(t, func(r *http.Request) stores.Fault {
		if r.Header.Get("If-None-Match") == "" {
			return stores.Fault{}
		}
		return stores.Fault{Status: http.StatusNotImplemented, Body: `<Error><Code>NotImplemented</Code></Error>`}
	})
	_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{IfAbsent: true})
	require.ErrorContains(t, err, "does not know conditional writes")
	require.True(t, object.IsPermanent(err))
}

// S3 answers 409 while another conditional write is under way: that is neither
// a lost race nor final.
func TestConflict(t *testing.T) {
	var conflicts atomic.Bool
	store := proxied(t, func(r *http.Request) stores.Fault {
		if r.Method != http.MethodPut || !conflicts.Load() {
			return stores.Fault{}
		}
		return stores.Fault{Status: http.StatusConflict, Body: `<Error><Code>ConditionalRequestConflict</Code></Error>`}
	})
	put := func() error {
		_, err := store.Put(t.Context(), "key", strings.NewReader("x"), object.PutOptions{IfAbsent: true})
		return err
	}
	conflicts.Store(true)
	err := put()
	require.Error(t, err)
	require.NotErrorIs(t, err, object.ErrExists)
	require.False(t, object.IsPermanent(err), "%v", err)
	conflicts.Store(false)
	require.NoError(t, put())
	conflicts.Store(true)
	require.ErrorIs(t, put(), object.ErrExists)
}

func TestCustomCA(t *testing.T) {
	server := stores.Run(t, stores.StartS3, stores.Options{TLS: true})
	opts := server.Options(stores.Bucket(t, server))
	use := func() error {
		store, err := s3.New(t.Context(), opts)
		require.NoError(t, err)
		defer store.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = store.Put(ctx, "key", strings.NewReader("x"), object.PutOptions{})
		return err
	}
	require.NoError(t, use())
	opts.CAFile = ""
	require.ErrorContains(t, use(), "certificate")
	opts.CAFile = server.AccessKeyFile
	_, err := s3.New(t.Context(), opts)
	require.ErrorContains(t, err, "no PEM certificate")
}

// New refuses what cannot work, and sends nothing.
func TestNew(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("New sent a request") }))
	defer silent.Close()
	good := s3.Options{Bucket: "b", Endpoint: silent.URL}
	_, err := s3.New(t.Context(), good)
	require.NoError(t, err)
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	for want, change := range map[string]func(*s3.Options){
		"no bucket":         func(o *s3.Options) { o.Bucket = "" },
		"no region":         func(o *s3.Options) { o.Endpoint = "" },
		"go together":       func(o *s3.Options) { o.AccessKeyFile = "f" },
		"needs an access":   func(o *s3.Options) { o.SessionTokenFile = "f" },
		"exclude":           func(o *s3.Options) { o.AccessKeyFile, o.SecretKeyFile, o.Profile = "f", "f", "p" },
		"part size":         func(o *s3.Options) { o.PartSize = 1 },
		"parts in flight":   func(o *s3.Options) { o.PartsInFlight = -1 },
		"credentials file":  func(o *s3.Options) { o.CredentialsFile = "/no/such/file" },
		"read CA file":      func(o *s3.Options) { o.CAFile = "/no/such/file" },
		"http or https":     func(o *s3.Options) { o.Endpoint = "ftp://host" },
		"only scheme, host": func(o *s3.Options) { o.Endpoint = "https://user:secret@host" },
	} {
		opts := good
		change(&opts)
		_, err := s3.New(t.Context(), opts)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret@")
	}
}
