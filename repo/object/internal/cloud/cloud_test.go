package cloud

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

func TestBodyKnowsWhetherMoreFollows(t *testing.T) {
	for _, wrap := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
	} {
		for length := range 12 {
			for _, size := range []int64{0, int64(length)} {
				b := NewBody(wrap(bytes.NewReader(make([]byte, length))), size)
				var got []int
				for more := true; more; {
					n, goesOn, err := b.Fill(make([]byte, 4))
					require.NoError(t, err)
					got = append(got, n)
					more = goesOn
				}
				for i, n := range got {
					if i < len(got)-1 {
						require.Equal(t, 4, n)
					} else if length > 0 {
						require.Positive(t, n)
					}
				}
				total := 0
				for _, n := range got {
					total += n
				}
				require.Equal(t, length, total)
			}
		}
	}
}

// The end of a body and its failure are never mixed up, not even when the
// failure is that of a truncated stream.
func TestBodyFails(t *testing.T) {
	for _, broken := range []error{io.ErrUnexpectedEOF, errors.New("broken")} {
		for length := range 9 {
			b := NewBody(io.MultiReader(bytes.NewReader(make([]byte, length)), iotest.ErrReader(broken)), 0)
			var err error
			for more := true; more && err == nil; {
				_, more, err = b.Fill(make([]byte, 4))
			}
			require.ErrorIs(t, err, broken)
		}
	}
	for _, c := range []struct{ length, size int64 }{{3, 4}, {5, 4}, {4, 8}, {8, 4}, {0, 1}} {
		b := NewBody(bytes.NewReader(make([]byte, c.length)), c.size)
		var err error
		for more := true; more && err == nil; {
			_, more, err = b.Fill(make([]byte, 4))
		}
		require.ErrorIs(t, err, object.ErrSize)
	}
	_, _, err := NewBody(iotest.ErrReader(nil), 0).Fill(make([]byte, 4))
	require.ErrorIs(t, err, io.ErrNoProgress)
}

// Whatever the size, an object fits the number of parts.
func TestPartSizes(t *testing.T) {
	p := &Parts{Size: 8 << 20, Max: 5 << 30, Count: 10_000}
	for _, total := range []int64{1, 8 << 20, 100 << 20, 80 << 30, 5 << 40, 45 << 40} {
		size := p.size(1, total)
		require.GreaterOrEqual(t, size*int64(p.Count), total)
		require.Equal(t, size, p.size(9999, total), "an even cut")
	}
	require.EqualValues(t, 8<<20, p.size(1, 70<<30))
	var sum int64
	for n := 1; n <= p.Count; n++ {
		require.LessOrEqual(t, p.size(n, 0), p.Max)
		sum += p.size(n, 0)
		if n == 1000 {
			require.EqualValues(t, 8000<<20, sum)
		}
	}
	require.Greater(t, sum, int64(5<<40), "S3's largest object")
	require.EqualValues(t, 17, p.First(17))
	require.EqualValues(t, 8<<20, p.First(0))
	require.EqualValues(t, 8<<20, p.First(9<<20))
}

// source yields pieces and counts how many bytes were read of it.
type source struct {
	io.Reader
	read atomic.Int64
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.read.Add(int64(n))
	return n, err
}

func parts(inFlight int) *Parts {
	return &Parts{Size: 100 << 10, Max: 1 << 30, Count: 100, InFlight: inFlight, Buffers: NewBuffers(100 << 10)}
}

func send(p *Parts, r io.Reader, size int64, fn func(context.Context, int, []byte) error) error {
	body := NewBody(r, size)
	first := p.Buffers.Get(p.First(size))
	if _, more, err := body.Fill(first); err != nil || !more {
		return errors.Join(err, errors.New("not several parts"))
	}
	return p.Send(context.Background(), body, first, size, fn)
}

func TestSend(t *testing.T) {
	data := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	for _, size := range []int64{0, int64(len(data))} {
		p := parts(3)
		src := &source{Reader: bytes.NewReader(data)}
		var mu sync.Mutex
		got := map[int][]byte{}
		var sent, most atomic.Int64
		err := send(p, src, size, func(_ context.Context, number int, part []byte) error {
			if held := src.read.Load() - sent.Load(); held > most.Load() {
				most.Store(held)
			}
			time.Sleep(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			got[number] = bytes.Clone(part)
			sent.Add(int64(len(part)))
			return nil
		})
		require.NoError(t, err)
		var all []byte
		for n := 1; n <= len(got); n++ {
			all = append(all, got[n]...)
		}
		require.True(t, bytes.Equal(data, all))
		if size > 0 { // parts keep their size
			require.LessOrEqual(t, most.Load(), 3*p.Size+4, "more in memory than promised")
		}
	}
}

// The first failure ends everything, and Send returns after the last call.
func TestSendFails(t *testing.T) {
	broken := errors.New("broken")
	for _, at := range []int{1, 2, 7} {
		var running atomic.Int32
		err := send(parts(4), bytes.NewReader(make([]byte, 3<<20)), 0, func(ctx context.Context, number int, _ []byte) error {
			running.Add(1)
			defer running.Add(-1)
			if number == at {
				return broken
			}
			if number > at {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		require.ErrorIs(t, err, broken)
		require.Zero(t, running.Load())
	}
	var running atomic.Int32
	body := io.MultiReader(bytes.NewReader(make([]byte, 450<<10)), iotest.ErrReader(broken))
	err := send(parts(9), body, 0, func(ctx context.Context, _ int, _ []byte) error {
		running.Add(1)
		defer running.Add(-1)
		<-ctx.Done()
		return ctx.Err()
	})
	require.ErrorIs(t, err, broken)
	require.Zero(t, running.Load())
	tooMany := parts(2)
	tooMany.Count = 3
	tooMany.Max = tooMany.Size
	err = send(tooMany, bytes.NewReader(make([]byte, 3<<20)), 0, func(context.Context, int, []byte) error { return nil })
	require.ErrorContains(t, err, "more than 3 parts")
	require.True(t, object.IsPermanent(err))
}

func TestDownload(t *testing.T) {
	read := func(have, said int64) error {
		_, err := io.Copy(io.Discard, Download(io.NopCloser(bytes.NewReader(make([]byte, have))), said, "key"))
		return err
	}
	require.NoError(t, read(0, 0))
	require.NoError(t, read(100_000, 100_000))
	require.ErrorIs(t, read(99_999, 100_000), io.ErrUnexpectedEOF)
	require.ErrorIs(t, read(0, 1), io.ErrUnexpectedEOF)
	require.ErrorContains(t, read(100_001, 100_000), "more bytes")
}

func TestRange(t *testing.T) {
	require.Equal(t, "bytes=0-", Range(0, -1))
	require.Equal(t, "bytes=7-7", Range(7, 1))
	require.Equal(t, "bytes=7-", Range(7, math.MaxInt64))
}

func TestListOrder(t *testing.T) {
	var o ListOrder
	for _, key := range []string{"", "a", "a-b", "a/b", "b"} {
		require.NoError(t, o.Next(key))
	}
	require.Error(t, o.Next("b"))
	require.Error(t, o.Next("a"))
}

func TestFromStatus(t *testing.T) {
	cause := errors.New("answer")
	for status, want := range map[int]struct{ permanent, throttled, denied bool }{
		400: {permanent: true}, 401: {permanent: true, denied: true}, 403: {permanent: true, denied: true},
		404: {permanent: true}, 408: {}, 409: {}, 412: {permanent: true}, 429: {throttled: true},
		500: {}, 501: {permanent: true}, 502: {}, 503: {throttled: true}, 504: {},
	} {
		err := FromStatus(cause, status, nil)
		_, throttled := object.RetryAfter(err)
		require.ErrorIs(t, err, cause)
		require.Equal(t, want.permanent, object.IsPermanent(err), status)
		require.Equal(t, want.throttled, throttled, status)
		require.Equal(t, want.denied, errors.Is(err, object.ErrDenied), status)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "Sun, 22 Nov 2026 01:00:30 GMT", 30 * time.Second},
		{"Retry-After", "Sun, 22 Nov 2026 00:00:30 GMT", 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "-3", 0},
		{"Retry-After", "99999999999999", 0},
		{"X-Ms-Retry-After-Ms", "250", 250 * time.Millisecond},
	} {
		require.Equal(t, c.want, retryAfter(http.Header{c.name: {c.value}}, now), c.value)
	}
	require.Zero(t, retryAfter(nil, now))
}

func TestEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"host": "https://host", "host:9000": "https://host:9000", "http://host/": "http://host",
		"https://host/a/b/": "https://host/a/b", "[::1]:9000": "https://[::1]:9000",
	} {
		u, err := Endpoint(in)
		require.NoError(t, err)
		require.Equal(t, want, u.String())
	}
	for _, in := range []string{"", "https://", "ftp://host", "https://host?x=y", "http://a b", "https://u:p@host"} {
		_, err := Endpoint(in)
		require.Error(t, err, in)
	}
}

func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write := func(content string) { require.NoError(t, os.WriteFile(path, []byte(content), 0o600)) }
	write("\n  value \r\n")
	s, err := Secret(path)
	require.NoError(t, err)
	require.Equal(t, "value", s)
	write(" \n")
	_, err = Secret(path)
	require.ErrorContains(t, err, "empty")
	write(string(make([]byte, maxSecret+1)))
	_, err = Secret(path)
	require.ErrorContains(t, err, "longer")
	_, err = Secret(path + "-none")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestBuffers(t *testing.T) {
	b := NewBuffers(1 << 20)
	for _, n := range []int64{0, 1, smallBuffer, smallBuffer + 1, 1 << 20, 1<<20 + 1} {
		buf := b.Get(n)
		require.Len(t, buf, int(n))
		b.Put(buf)
	}
	require.Len(t, b.Get(1<<20), 1<<20)
}
