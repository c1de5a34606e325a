package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// Get implements object.Reader.
func (s *store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := object.CheckKey(key); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("get %s at %d, %d bytes: %w", key, offset, length, object.ErrBadRange)
	}
	if length == 0 {
		return s.getNothing(ctx, key, offset)
	}
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: &key}
	ranged := offset > 0 || length > 0
	if ranged {
		in.Range = aws.String(cloud.Range(offset, length))
	}
	out, err := s.client.GetObject(ctx, in)
	if err != nil {
		switch code, status, _ := answer(err); {
		case status == http.StatusRequestedRangeNotSatisfiable:
			return s.getNothing(ctx, key, offset)
		case status == http.StatusNotFound && code != "NoSuchKey" && code != "NoSuchBucket":
			return nil, s.missing(ctx, "get", key)
		}
		return nil, s.fail("get", key, err)
	}
	s.seen.Store(true)
	place := key + " in " + s.place
	got := aws.ToString(out.ContentRange)
	switch {
	case out.ContentLength == nil || *out.ContentLength < 0:
		err = errors.New("the store does not say how long the answer is")
	case ranged && !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", offset)):
		err = fmt.Errorf("the store answered a request for byte %d with range %q", offset, got)
	case length > 0 && *out.ContentLength > length:
		err = fmt.Errorf("the store answered a request for %d bytes with %d", length, *out.ContentLength)
	}
	if err != nil {
		out.Body.Close()
		return nil, fmt.Errorf("get %s: %w", place, object.Permanent(err))
	}
	return cloud.Download(out.Body, *out.ContentLength, place), nil
}

// getNothing answers for a range without bytes, which HTTP cannot express:
// right if the object is at least offset bytes long.
func (s *store) getNothing(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if offset > info.Size {
		return nil, fmt.Errorf("get %s in %s at %d of %d: %w", key, s.place, offset, info.Size, object.ErrBadRange)
	}
	return http.NoBody, nil
}

// Stat implements object.Reader.
func (s *store) Stat(ctx context.Context, key string) (object.Info, error) {
	if err := object.CheckKey(key); err != nil {
		return object.Info{}, err
	}
	info, _, err := s.head(ctx, "stat", key)
	return info, err
}

// head asks for one object, and also returns the mark of the Put that stored
// it. verb is for the error.
func (s *store) head(ctx context.Context, verb, key string) (object.Info, string, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		if _, status, _ := answer(err); status == http.StatusNotFound {
			return object.Info{}, "", s.missing(ctx, verb, key)
		}
		return object.Info{}, "", s.fail(verb, key, err)
	}
	s.seen.Store(true)
	return object.Info{
		Key: key, Size: aws.ToInt64(out.ContentLength),
		Modified: aws.ToTime(out.LastModified), Version: aws.ToString(out.ETag),
	}, out.Metadata[cloud.TokenKey], nil
}

// List implements object.Reader.
func (s *store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix}
	if opts.After != "" {
		in.StartAfter = &opts.After
	}
	pages := s3.NewListObjectsV2Paginator(s.client, in, func(o *s3.ListObjectsV2PaginatorOptions) {
		o.StopOnDuplicateToken = true
	})
	var order cloud.ListOrder
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.fail("list", prefix+"*", err)
		}
		s.seen.Store(true)
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			if key <= opts.After || !strings.HasPrefix(key, prefix) {
				continue
			}
			if err := order.Next(key); err != nil {
				return s.fail("list", prefix+"*", object.Permanent(err))
			}
			if err := ctx.Err(); err != nil {
				return s.fail("list", prefix+"*", err)
			}
			err := fn(object.Info{
				Key: key, Size: aws.ToInt64(o.Size),
				Modified: aws.ToTime(o.LastModified), Version: aws.ToString(o.ETag),
			})
			if err != nil {
				return err
			}
		}
		if aws.ToBool(page.IsTruncated) && aws.ToString(page.NextContinuationToken) == "" {
			return s.fail("list", prefix+"*", errors.New("the store says there is more, but not where"))
		}
	}
	return nil
}
