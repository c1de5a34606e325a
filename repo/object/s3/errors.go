package s3

import (
	"errors"
	"fmt"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// errNoBucket is not object.ErrNotFound, which is about keys: a misspelt bucket
// must never look like an archive without the segment that was asked for.
var errNoBucket = errors.New("the bucket does not exist")

// classify adds to an SDK error what package object wants to know: one of its
// sentinels, Permanent or Throttled. nil stays nil.
func classify(err error) error {
	if err == nil {
		return nil
	}
	code, status, header := answer(err)
	switch code {
	case "NoSuchKey":
		return fmt.Errorf("%w: %w", object.ErrNotFound, err)
	case "NoSuchBucket":
		return object.Permanent(fmt.Errorf("%w: %w", errNoBucket, err))
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
		"AccountProblem", "AllAccessDisabled", "InvalidSecurity", "NotSignedUp":
		return fmt.Errorf("%w: %w", object.ErrDenied, err)
	case "RequestTimeTooSkewed":
		return object.Permanent(fmt.Errorf("the clock of this machine is wrong: %w", err))
	case "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded",
		"TooManyRequests", "RequestThrottled", "BandwidthLimitExceeded":
		return cloud.FromStatus(err, http.StatusServiceUnavailable, header)
	case "RequestTimeout", "InternalError", "OperationAborted", "BadDigest", "XAmzContentSHA256Mismatch",
		"IncompleteBody", "NoSuchUpload":
		return err // worth another try, whatever the status
	}
	if status == 0 {
		return err
	}
	return cloud.FromStatus(err, status, header)
}

// answer takes the store's error code, HTTP status and header out of err; zero
// values if it never answered.
func answer(err error) (code string, status int, header http.Header) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) && resp.Response != nil && resp.Response.Response != nil {
		status, header = resp.HTTPStatusCode(), resp.Response.Header
	}
	return code, status, header
}
