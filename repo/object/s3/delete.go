package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo/object"
)

const (
	deleteBatch   = 1000 // keys in one DeleteObjects, the most S3 takes
	deletesAtOnce = 8    // single deletes in flight, where batches are unknown
)

// Delete implements object.Store.
func (s *store) Delete(ctx context.Context, keys ...string) error {
	var errs []error
	good := make([]string, 0, len(keys))
	for _, key := range keys {
		if err := object.CheckKey(key); err != nil {
			errs = append(errs, err)
			continue
		}
		good = append(good, key)
	}
	for batch := range slices.Chunk(good, deleteBatch) {
		if len(batch) == 1 || s.noBatch.Load() {
			errs = append(errs, s.deleteEach(ctx, batch))
			continue
		}
		errs = append(errs, s.deleteBatch(ctx, batch))
	}
	return errors.Join(errs...)
}

// deleteBatch deletes up to 1000 keys with one request.
func (s *store) deleteBatch(ctx context.Context, keys []string) error {
	in := &s3.DeleteObjectsInput{Bucket: &s.bucket, Delete: &types.Delete{Quiet: aws.Bool(true)}}
	for _, key := range keys {
		in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: &key})
	}
	out, err := s.client.DeleteObjects(ctx, in, contentMD5)
	if err != nil {
		code, status, _ := answer(err)
		if status == http.StatusNotImplemented || status == http.StatusMethodNotAllowed || code == "NotImplemented" {
			s.noBatch.Store(true)
			return s.deleteEach(ctx, keys)
		}
		return s.fail("delete", fmt.Sprintf("%s and %d more", keys[0], len(keys)-1), err)
	}
	var errs []error
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); code != "NoSuchKey" {
			err := &smithy.GenericAPIError{Code: code, Message: aws.ToString(e.Message)}
			errs = append(errs, s.fail("delete", aws.ToString(e.Key), err))
		}
	}
	return errors.Join(errs...)
}

// deleteEach deletes keys one by one, a few at a time.
func (s *store) deleteEach(ctx context.Context, keys []string) error {
	var (
		mu    sync.Mutex // guards errs
		errs  []error
		group errgroup.Group
	)
	group.SetLimit(deletesAtOnce)
	for _, key := range keys {
		group.Go(func() error {
			_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key})
			if err != nil && !errors.Is(classify(err), object.ErrNotFound) {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, s.fail("delete", key, err))
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// contentMD5 puts Content-MD5 in place of the SDK's CRC-32 header: S3 wants one
// of the two in a DeleteObjects, older stores only know the former.
func contentMD5(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		// Not found means that the SDK has renamed it; then both are sent.
		_, _ = stack.Initialize.Remove("AWSChecksum:SetupInputContext")
		_, _ = stack.Finalize.Remove("AWSChecksum:ComputeInputPayloadChecksum")
		return smithyhttp.AddContentChecksumMiddleware(stack)
	})
}
