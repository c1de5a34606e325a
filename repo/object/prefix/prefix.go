// Package prefix shows the part of an [object.Store] below a prefix as a store
// of its own: several clusters share one bucket that way.
package prefix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// Store is an object.Store that puts a prefix before every key. Make one with
// [New].
type Store struct {
	store  object.Store
	prefix string // ends in '/'
}

var _ object.Store = (*Store)(nil)

// New returns the part of store below prefix and a '/'. prefix is a valid key,
// with or without a '/' at its end; "" returns store itself. The longest key is
// shorter by the prefix and the '/' than [object.MaxKeyLength]. Closing the
// result closes store.
func New(store object.Store, prefix string) (object.Store, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return store, nil
	}
	if err := object.CheckKey(prefix); err != nil {
		return nil, fmt.Errorf("prefix of %s: %w", store, err)
	}
	return &Store{store: store, prefix: prefix + "/"}, nil
}

// key makes a key of the store below out of one of ours. It is checked before:
// "../x" is bad on its own, not only behind the prefix.
func (s *Store) key(key string) (string, error) {
	if err := object.CheckKey(key); err != nil {
		return "", err
	}
	return s.prefix + key, nil
}

func (s *Store) info(i object.Info) object.Info {
	i.Key = strings.TrimPrefix(i.Key, s.prefix)
	return i
}

// Get implements [object.Reader].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := s.key(key)
	if err != nil {
		return nil, err
	}
	return s.store.Get(ctx, full, offset, length)
}

// Stat implements [object.Reader].
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	full, err := s.key(key)
	if err != nil {
		return object.Info{}, err
	}
	i, err := s.store.Stat(ctx, full)
	return s.info(i), err
}

// List implements [object.Reader].
func (s *Store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	if opts.After != "" {
		opts.After = s.prefix + opts.After
	}
	return s.store.List(ctx, s.prefix+prefix, opts, func(i object.Info) error { return fn(s.info(i)) })
}

// Put implements [object.Store].
func (s *Store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	full, err := s.key(key)
	if err != nil {
		return object.Info{}, err
	}
	i, err := s.store.Put(ctx, full, body, opts)
	return s.info(i), err
}

// Delete implements [object.Store].
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var bad []error
	full := make([]string, 0, len(keys))
	for _, key := range keys {
		k, err := s.key(key)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		full = append(full, k)
	}
	return errors.Join(append(bad, s.store.Delete(ctx, full...))...)
}

// AbortUploads implements [object.Aborter].
func (s *Store) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	return object.AbortUploads(ctx, s.store, s.prefix+prefix, before)
}

// String implements [object.Store].
func (s *Store) String() string { return s.store.String() + "/" + strings.TrimSuffix(s.prefix, "/") }

// Close closes the store below.
func (s *Store) Close() error { return s.store.Close() }
