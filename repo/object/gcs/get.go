package gcs

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// Get implements object.Reader. The SDK resumes a broken download a few times,
// pinned to the generation it began with, and checks the CRC-32C of an object
// that is read whole.
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
	r, err := s.bucket.Object(key).NewRangeReader(ctx, offset, length)
	if err != nil {
		if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
			return s.getNothing(ctx, key, offset)
		}
		return nil, s.failKey(ctx, "get", key, err)
	}
	s.seen.Store(true)
	place := key + " in " + s.place
	if r.Remain() < 0 {
		r.Close()
		return nil, fmt.Errorf("get %s: %w", place, object.Permanent(errNoLength))
	}
	return cloud.Download(r, r.Remain(), place), nil
}

var errNoLength = fmt.Errorf("the store does not say how long the answer is")

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
	attrs, err := s.bucket.Object(key).Attrs(ctx)
	if err != nil {
		return object.Info{}, s.failKey(ctx, "stat", key, err)
	}
	s.seen.Store(true)
	return info(attrs), nil
}

func info(a *storage.ObjectAttrs) object.Info {
	return object.Info{Key: a.Name, Size: a.Size, Modified: modified(a), Version: strconv.FormatInt(a.Generation, 10)}
}

// modified is when the content was stored; Updated also moves with metadata.
func modified(a *storage.ObjectAttrs) time.Time {
	if !a.Created.IsZero() {
		return a.Created
	}
	return a.Updated
}

// List implements object.Reader.
func (s *store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	// StartOffset includes the key it names.
	query := &storage.Query{Prefix: prefix, StartOffset: opts.After, Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name", "Size", "Created", "Updated", "Generation"}); err != nil {
		return err
	}
	var order cloud.ListOrder
	it := s.bucket.Objects(ctx, query)
	it.PageInfo().MaxSize = s.page
	for {
		attrs, err := it.Next()
		if err == iterator.Done {
			s.seen.Store(true)
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s* in %s: %w", prefix, s.place, classifyBucket(err))
		}
		if attrs.Name <= opts.After || !strings.HasPrefix(attrs.Name, prefix) {
			continue
		}
		if err := order.Next(attrs.Name); err != nil {
			return fmt.Errorf("list %s* in %s: %w", prefix, s.place, object.Permanent(err))
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s* in %s: %w", prefix, s.place, err)
		}
		if err := fn(info(attrs)); err != nil {
			return err
		}
	}
}
