package s3

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

// Uploads returns the keys of the multipart uploads that are under way.
func Uploads(t *testing.T, o object.Store) (keys []string) {
	t.Helper()
	s := o.(*store)
	out, err := s.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.bucket})
	require.NoError(t, err)
	for _, u := range out.Uploads {
		keys = append(keys, *u.Key)
	}
	return keys
}

// BeginUpload leaves a multipart upload behind, as a writer that is killed does.
func BeginUpload(t *testing.T, o object.Store, key string) {
	t.Helper()
	s := o.(*store)
	_, err := s.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: &key})
	require.NoError(t, err)
}
