package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walkeep/walkeep/repo/object"
)

var _ object.Aborter = (*store)(nil)

// AbortUploads implements [object.Aborter] with ListMultipartUploads and
// AbortMultipartUpload. A store that does not know the first (501, 405) has
// nothing that could be aborted from here.
//
// Killed between two requests, it has aborted some, and the next call finds the
// others. An upload that is completed or aborted by somebody else meanwhile is
// gone, which is no error.
func (s *store) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: &prefix}
	aborted := 0
	var failed []error
	for {
		page, err := s.client.ListMultipartUploads(ctx, in)
		if _, status, _ := answer(err); status == http.StatusNotImplemented || status == http.StatusMethodNotAllowed {
			return aborted, errors.Join(failed...)
		}
		if err != nil {
			return aborted, errors.Join(append(failed, s.fail("list the uploads of", prefix+"*", err))...)
		}
		for _, found := range page.Uploads {
			key := aws.ToString(found.Key)
			if !strings.HasPrefix(key, prefix) || found.UploadId == nil || found.Initiated == nil || !found.Initiated.Before(before) {
				continue
			}
			gone, err := (&upload{store: s, key: key}).abort(ctx, found.UploadId)
			switch {
			case err != nil:
				failed = append(failed, err)
			case !gone:
				aborted++
			}
		}
		key, id := aws.ToString(page.NextKeyMarker), aws.ToString(page.NextUploadIdMarker)
		if !aws.ToBool(page.IsTruncated) {
			return aborted, errors.Join(failed...)
		}
		if key == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
			return aborted, errors.Join(append(failed, fmt.Errorf("list the uploads of %s* in %s: the store says there is more, but not where", prefix, s.place))...)
		}
		in.KeyMarker, in.UploadIdMarker = &key, &id
	}
}
