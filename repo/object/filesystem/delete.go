package filesystem

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// deleteBatch is how many keys are deleted under one hold of the lock: a lease
// that is being renewed waits no longer than for those.
const deleteBatch = 64

// Delete implements [object.Store]. Directories that become empty go too. A Put
// that had one of them in mind finds it gone and makes it again; rmdir fails if
// the Put was faster.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var failed []error
	fail := func(key string, err error) {
		if !errors.Is(err, unix.ENOENT) {
			failed = append(failed, s.explain("delete", key, err))
		}
	}
	valid := make([]string, 0, len(keys))
	for _, key := range keys {
		if err := object.CheckKey(key); err != nil {
			failed = append(failed, err)
			continue
		}
		valid = append(valid, key)
	}
	slices.Sort(valid) // so that neighbours share an open directory
	touched := map[string]bool{}
	for batch := range slices.Chunk(valid, deleteBatch) {
		if err := s.deleteBatch(ctx, batch, touched, fail); err != nil {
			failed = append(failed, s.explain("delete", batch[0], err))
			break
		}
	}
	for _, path := range slices.Sorted(maps.Keys(touched)) {
		if err := s.prune(path); err != nil {
			failed = append(failed, s.explain("sync after deleting in", path, err))
		}
	}
	return errors.Join(failed...)
}

// deleteBatch removes the files of keys and notes their directories in touched.
func (s *Store) deleteBatch(ctx context.Context, keys []string, touched map[string]bool, fail func(string, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("lock the repository: %w", err)
	}
	defer unlock()
	var dir *os.File
	var opened string
	defer func() { _ = dir.Close() }()
	for i, key := range keys {
		path, name := split(key)
		if i == 0 || path != opened {
			_ = dir.Close()
			dir, err = s.openDir(path)
			opened = path
		}
		touched[path] = true
		if err != nil {
			fail(key, err)
			continue
		}
		st, err := stat(dir, name)
		if err == nil && isRegular(st) { // else it is no object
			err = unlink(dir, name)
		}
		if err != nil {
			fail(key, err)
		}
	}
	return nil
}

// prune removes the directory path if it is empty, then the one above it, and so
// on, and makes durable what happened in the first one that stays.
func (s *Store) prune(path string) error {
	for path != "" {
		above, name := split(path)
		parent, err := s.openDir(above)
		if err == nil {
			err = again(func() error { return unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR) })
			_ = parent.Close()
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			break // not empty, most likely
		}
		path = above
	}
	for {
		dir, err := s.openDir(path)
		if errors.Is(err, unix.ENOENT) && path != "" {
			// Removed by another Delete since. It will sync what is above, but
			// we may return before that.
			path, _ = split(path)
			continue
		}
		if err != nil {
			return err
		}
		return errors.Join(syncDir(dir), dir.Close())
	}
}
