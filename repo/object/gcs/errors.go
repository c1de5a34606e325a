package gcs

import (
	"errors"
	"fmt"
	"net/http"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// errNoBucket is not object.ErrNotFound, which is about keys: a misspelt bucket
// must never look like an archive without the segment that was asked for.
var errNoBucket = errors.New("the bucket does not exist")

// classify adds to an SDK error of a request about one key what package object
// wants to know: one of its sentinels, Permanent or Throttled. nil stays nil.
func classify(err error) error {
	if errors.Is(err, storage.ErrObjectNotExist) {
		return fmt.Errorf("%w: %w", object.ErrNotFound, err)
	}
	if statusOf(err) == http.StatusNotFound && !errors.Is(err, storage.ErrBucketNotExist) {
		return fmt.Errorf("%w: %w", object.ErrNotFound, err)
	}
	return classifyBucket(err)
}

// classifyBucket is classify for requests about the bucket.
func classifyBucket(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, storage.ErrBucketNotExist) || statusOf(err) == http.StatusNotFound {
		return object.Permanent(fmt.Errorf("%w: %w", errNoBucket, err))
	}
	var token *auth.Error // from the place where credentials are exchanged
	if errors.As(err, &token) && token.Response != nil && !token.Temporary() {
		return fmt.Errorf("%w: %w", object.ErrDenied, err)
	}
	var api *googleapi.Error
	if !errors.As(err, &api) || api.Code == 0 {
		return err
	}
	return cloud.FromStatus(err, api.Code, api.Header)
}

// statusOf is the HTTP status in err, 0 without an answer.
func statusOf(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}
