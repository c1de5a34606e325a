// Package memory keeps objects in the memory of the process: a [object.Store]
// for tests and for trying things out. It keeps every promise but durability
// beyond the process.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// Store is an object.Store in memory. Make one with [New].
type Store struct {
	mu      sync.Mutex // guards what follows
	objects map[string]stored
	puts    int64 // counts Puts and so makes versions
}

var _ object.Store = (*Store)(nil)

// stored is one version of an object. content is never written to again, so
// readers share it.
type stored struct {
	object.Info
	content []byte
}

// New returns an empty store.
func New() *Store { return &Store{objects: map[string]stored{}} }

// String implements [object.Store].
func (s *Store) String() string { return "memory" }

// Close implements [object.Store]. The objects stay: a test may open a store
// again.
func (s *Store) Close() error { return nil }

// Put implements [object.Store].
func (s *Store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	if err := object.CheckPut(key, opts); err != nil {
		return object.Info{}, err
	}
	content, err := io.ReadAll(object.UntilDone(ctx, object.Exactly(body, opts.Size)))
	if err == nil {
		err = ctx.Err() // cancelled during the last read
	}
	if err != nil {
		return object.Info{}, fmt.Errorf("put %s to memory: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.objects[key]
	switch {
	case opts.IfAbsent && exists:
		return object.Info{}, fmt.Errorf("put %s to memory: %w", key, object.ErrExists)
	case opts.IfMatch != "" && old.Version != opts.IfMatch: // also when it is gone
		return object.Info{}, fmt.Errorf("put %s to memory: %w", key, object.ErrChanged)
	}
	s.puts++
	put := stored{content: content, Info: object.Info{
		Key: key, Size: int64(len(content)), Modified: time.Now(), Version: strconv.FormatInt(s.puts, 10),
	}}
	s.objects[key] = put
	return put.Info, nil
}

// lookup finds one object.
func (s *Store) lookup(ctx context.Context, verb, key string) (stored, error) {
	if err := object.CheckKey(key); err != nil {
		return stored{}, err
	}
	if err := ctx.Err(); err != nil {
		return stored{}, fmt.Errorf("%s %s from memory: %w", verb, key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return stored{}, fmt.Errorf("%s %s from memory: %w", verb, key, object.ErrNotFound)
	}
	return o, nil
}

// Get implements [object.Reader].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.lookup(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > o.Size || length < -1 {
		return nil, fmt.Errorf("get %s from memory: %d+%d of %d bytes: %w", key, offset, length, o.Size, object.ErrBadRange)
	}
	part := o.content[offset:]
	if length >= 0 && length < int64(len(part)) {
		part = part[:length]
	}
	return io.NopCloser(object.UntilDone(ctx, bytes.NewReader(part))), nil
}

// Stat implements [object.Reader].
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	o, err := s.lookup(ctx, "stat", key)
	return o.Info, err
}

// List implements [object.Reader]. It lists the keys of one moment.
func (s *Store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	s.mu.Lock()
	var found []object.Info
	for o := range maps.Values(s.objects) {
		if strings.HasPrefix(o.Key, prefix) && o.Key > opts.After {
			found = append(found, o.Info)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b object.Info) int { return strings.Compare(a.Key, b.Key) })
	for _, info := range found {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s in memory: %w", prefix, err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Delete implements [object.Store].
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete from memory: %w", err)
	}
	var bad []error
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if err := object.CheckKey(key); err != nil {
			bad = append(bad, err)
			continue
		}
		delete(s.objects, key)
	}
	return errors.Join(bad...)
}
