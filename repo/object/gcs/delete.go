package gcs

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo/object"
)

// Delete implements object.Store.
func (s *store) Delete(ctx context.Context, keys ...string) error {
	var (
		mu    sync.Mutex // guards errs
		errs  []error
		group errgroup.Group
	)
	group.SetLimit(deletesAtOnce)
	for _, key := range keys {
		group.Go(func() error {
			if err := s.deleteOne(ctx, key); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

func (s *store) deleteOne(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	err := s.bucket.Object(key).Delete(ctx)
	if err == nil {
		return nil
	}
	if err = s.failKey(ctx, "delete", key, err); errors.Is(err, object.ErrNotFound) {
		return nil
	}
	return err
}
