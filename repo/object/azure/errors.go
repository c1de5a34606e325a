package azure

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// errNoContainer is not object.ErrNotFound, which is about keys: a misspelt
// container must never look like an archive without the segment asked for.
var errNoContainer = errors.New("the container does not exist")

// classify adds to an SDK error what package object wants to know: one of its
// sentinels, Permanent or Throttled. nil stays nil.
func classify(err error) error {
	if err == nil {
		return nil
	}
	hideSignature(err)
	code, status, header := answer(err)
	switch code {
	case bloberror.BlobNotFound:
		return fmt.Errorf("%w: %w", object.ErrNotFound, err)
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return object.Permanent(fmt.Errorf("%w: %w", errNoContainer, err))
	case bloberror.BlobImmutableDueToPolicy, bloberror.SnapshotsPresent:
		return object.Permanent(err)
	case bloberror.ServerBusy:
		return cloud.FromStatus(err, http.StatusServiceUnavailable, header)
	case bloberror.InvalidBlockList, bloberror.InvalidBlobOrBlock, bloberror.MD5Mismatch, bloberror.OperationTimedOut:
		return err // worth another try, whatever the status
	}
	if status != 0 {
		return cloud.FromStatus(err, status, header)
	}
	var refused *azidentity.AuthenticationFailedError
	if errors.As(err, &refused) && refused.RawResponse != nil && refused.RawResponse.StatusCode < 500 {
		return fmt.Errorf("%w: %w", object.ErrDenied, err)
	}
	var final interface {
		error
		NonRetriable()
	}
	if errors.As(err, &final) {
		return object.Permanent(err) // no credentials found, say
	}
	return err
}

// answer takes the store's error code, HTTP status and header out of err; zero
// values if it never answered.
func answer(err error) (bloberror.Code, int, http.Header) {
	var resp *azcore.ResponseError
	if !errors.As(err, &resp) {
		return "", 0, nil
	}
	var header http.Header
	if resp.RawResponse != nil {
		header = resp.RawResponse.Header
	}
	return bloberror.Code(resp.ErrorCode), resp.StatusCode, header
}

// hideSignature takes the query out of the URL that net/http puts into errors:
// there the shared access signature stands.
func hideSignature(err error) {
	var u *url.Error
	if !errors.As(err, &u) {
		return
	}
	if parsed, parseErr := url.Parse(u.URL); parseErr == nil {
		parsed.RawQuery = ""
		u.URL = parsed.String()
	}
}
