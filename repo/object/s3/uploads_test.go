package s3_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/limit"
	"github.com/walkeep/walkeep/repo/object/prefix"
	"github.com/walkeep/walkeep/repo/object/retry"
	"github.com/walkeep/walkeep/repo/object/s3"
)

// What a killed writer left is aborted through all wrappers: what is old
// enough, and below the prefix, and nothing else.
func TestAbortUploads(t *testing.T) {
	bucket := open(t)
	for _, key := range []string{"hippo/pack/1", "hippo/pack/2", "hippo/wal/1", "hippopotamus/pack/1"} {
		s3.BeginUpload(t, bucket, key)
	}
	below, err := prefix.New(limit.New(faulty.New(bucket, faulty.Rule{Op: faulty.Delete, At: 1, Fault: faulty.Fail}), limit.Options{Requests: 1}), "hippo")
	require.NoError(t, err)
	store := retry.New(below, retry.Options{InitialWait: time.Millisecond})

	n, err := object.AbortUploads(t.Context(), store, "", time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Zero(t, n, "young ones may still be written")
	require.Len(t, s3.Uploads(t, bucket), 4)
	n, err = object.AbortUploads(t.Context(), store, "pack/", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.ElementsMatch(t, []string{"hippo/wal/1", "hippopotamus/pack/1"}, s3.Uploads(t, bucket))
	n, err = object.AbortUploads(t.Context(), store, "", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, []string{"hippopotamus/pack/1"}, s3.Uploads(t, bucket))
}
