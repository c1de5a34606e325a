package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// Get implements object.Reader. The SDK resumes a broken download a few times,
// pinned to the ETag it began with.
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
	ranged := offset > 0 || length > 0
	out, err := s.client.NewBlobClient(key).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range: blob.HTTPRange{Offset: offset, Count: max(length, 0)}, // 0: to the end
	})
	if err != nil {
		if _, status, _ := answer(err); status == http.StatusRequestedRangeNotSatisfiable {
			return s.getNothing(ctx, key, offset)
		}
		return nil, s.fail("get", key, err)
	}
	place := key + " in " + s.place
	got := deref(out.ContentRange)
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
	r := out.NewRetryReader(ctx, &blob.RetryReaderOptions{MaxRetries: retries, EarlyCloseAsError: true})
	return cloud.Download(r, *out.ContentLength, place), nil
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
	info, _, err := s.properties(ctx, "stat", key)
	return info, err
}

// properties asks for one object, and also returns the mark of the Put that
// stored it. verb is for the error.
func (s *store) properties(ctx context.Context, verb, key string) (object.Info, string, error) {
	out, err := s.client.NewBlobClient(key).GetProperties(ctx, nil)
	if err != nil {
		return object.Info{}, "", s.fail(verb, key, err)
	}
	info := object.Info{
		Key: key, Size: deref(out.ContentLength), Modified: deref(out.LastModified), Version: version(out.ETag),
	}
	for name, value := range out.Metadata { // the case of names is not kept
		if strings.EqualFold(name, cloud.TokenKey) {
			return info, deref(value), nil
		}
	}
	return info, "", nil
}

// List implements object.Reader.
func (s *store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	fail := func(err error) error {
		return fmt.Errorf("list %s* in %s: %w", prefix, s.place, classify(err))
	}
	var order cloud.ListOrder
	in := &container.ListBlobsFlatOptions{Prefix: &prefix}
	if opts.After != "" {
		in.StartFrom = &opts.After // inclusive
	}
	if s.page > 0 {
		in.MaxResults = &s.page
	}
	pages := s.client.NewListBlobsFlatPager(in)
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fail(err)
		}
		if page.Segment == nil {
			continue
		}
		for _, item := range page.Segment.BlobItems {
			info, ok := listed(item)
			if !ok || info.Key <= opts.After || !strings.HasPrefix(info.Key, prefix) {
				continue
			}
			if err := order.Next(info.Key); err != nil {
				return fail(object.Permanent(err))
			}
			if err := ctx.Err(); err != nil {
				return fail(err)
			}
			if err := fn(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// listed turns an item of a listing into an Info; false for directories of an
// account with hierarchical namespace.
func listed(item *container.BlobItem) (object.Info, bool) {
	if item == nil || item.Name == nil || item.Properties == nil {
		return object.Info{}, false
	}
	if t := item.Properties.ResourceType; t != nil && strings.EqualFold(*t, "directory") {
		return object.Info{}, false
	}
	p := item.Properties
	return object.Info{
		Key: *item.Name, Size: deref(p.ContentLength), Modified: deref(p.LastModified), Version: version(p.ETag),
	}, true
}

// version is the ETag in the form that If-Match wants; listings give it without
// the quotes.
func version(etag *azcore.ETag) string {
	v := string(deref(etag))
	if v != "" && !strings.HasPrefix(v, `"`) && !strings.HasPrefix(v, "W/") {
		v = `"` + v + `"`
	}
	return v
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
