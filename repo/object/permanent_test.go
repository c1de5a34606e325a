package object_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

func TestPermanent(t *testing.T) {
	plain := errors.New("trouble")
	require.NoError(t, object.Permanent(nil))
	require.False(t, object.IsPermanent(nil))
	require.False(t, object.IsPermanent(plain))
	require.False(t, object.IsPermanent(context.DeadlineExceeded), "may be the driver's own")
	marked := fmt.Errorf("put x: %w", object.Permanent(plain))
	require.True(t, object.IsPermanent(marked))
	require.ErrorIs(t, marked, plain)
	require.EqualError(t, marked, "put x: trouble")
	for _, err := range []error{
		object.ErrNotFound, object.ErrExists, object.ErrChanged, object.ErrDenied, object.ErrBadKey, object.ErrBadRange, object.ErrSize,
	} {
		require.True(t, object.IsPermanent(fmt.Errorf("x: %w: %w", plain, err)), err)
	}
}

func TestThrottled(t *testing.T) {
	require.NoError(t, object.Throttled(nil, time.Second))
	_, ok := object.RetryAfter(errors.New("trouble"))
	require.False(t, ok)
	err := fmt.Errorf("x: %w", object.Throttled(io.ErrUnexpectedEOF, time.Second))
	after, ok := object.RetryAfter(err)
	require.True(t, ok)
	require.Equal(t, time.Second, after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.False(t, object.IsPermanent(err))
	after, ok = object.RetryAfter(object.Throttled(err, -1))
	require.True(t, ok)
	require.Zero(t, after)
}

func TestExactly(t *testing.T) {
	for _, c := range []struct {
		actual string
		size   int64
		ok     bool
	}{
		{"", 0, true},
		{"abc", 0, true}, // not known
		{"abc", 3, true},
		{"abc", 2, false},
		{"abc", 4, false},
		{"", 1, false},
	} {
		for _, slow := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader,
		} {
			b, err := io.ReadAll(object.Exactly(slow(strings.NewReader(c.actual)), c.size))
			if c.ok {
				require.NoError(t, err)
				require.Equal(t, c.actual, string(b))
				continue
			}
			require.ErrorIs(t, err, object.ErrSize)
		}
	}
}

func TestUntilDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := object.UntilDone(ctx, strings.NewReader("ab"))
	_, err := io.ReadFull(r, make([]byte, 1))
	require.NoError(t, err)
	cancel()
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, context.Canceled)
}
