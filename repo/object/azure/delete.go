package azure

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo/object"
)

const (
	deleteBatch   = 256 // names in one batch, the most Azure takes
	deletesAtOnce = 16  // single deletes in flight, where batches are refused
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
		if len(batch) > 1 && !s.noBatch.Load() {
			batch = s.deleteBatch(ctx, batch)
		}
		errs = append(errs, s.deleteEach(ctx, batch))
	}
	return errors.Join(errs...)
}

// deleteBatch deletes up to 256 keys with one request and returns those that it
// could not: they are tried one by one, which also finds out why.
func (s *store) deleteBatch(ctx context.Context, keys []string) (left []string) {
	batch, err := s.client.NewBatchBuilder()
	if err != nil {
		return keys
	}
	for _, key := range keys {
		if err := batch.Delete(key, nil); err != nil {
			return keys
		}
	}
	out, err := s.client.SubmitBatch(ctx, batch, nil)
	if err != nil {
		// Accounts with hierarchical namespace and some emulators refuse
		// batches as such; do not ask them each time.
		if _, status, _ := answer(err); status >= 400 && status < 500 && ctx.Err() == nil && !errors.Is(classify(err), errNoContainer) {
			s.noBatch.Store(true)
		}
		return keys
	}
	done := make([]bool, len(keys))
	for _, r := range out.Responses {
		// The number of a sub-request is that of its key. (BlobName is wrong
		// where the account is part of the path.)
		if r == nil || r.ContentID == nil || *r.ContentID < 0 || *r.ContentID >= len(keys) {
			continue
		}
		done[*r.ContentID] = r.Error == nil || errors.Is(classify(r.Error), object.ErrNotFound)
	}
	for i, key := range keys {
		if !done[i] {
			left = append(left, key)
		}
	}
	return left
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
			_, err := s.client.NewBlobClient(key).Delete(ctx, nil)
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
