package dial

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// openAgain is how often opening a store is tried at most.
const openAgain = time.Second

// unavailable stands for a store that could not be opened: each request gets
// the reason. So one repository whose disk is not mounted or whose key file is
// gone is reported like one that does not answer, and keeps nobody from using
// the others. It is opened as soon as it can be: a service that starts before a
// disk is mounted goes on when it is.
type unavailable struct {
	place string
	open  func() (object.Store, error) // nil: never

	mu    sync.Mutex // guards what follows
	store object.Store
	err   error
	tried time.Time
}

var _ object.Store = (*unavailable)(nil)

// get is the store, or why there is none.
func (u *unavailable) get() (object.Store, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.store == nil && u.open != nil && time.Since(u.tried) >= openAgain {
		u.store, u.err = u.open()
		u.tried = time.Now()
	}
	if u.store == nil {
		return nil, u.err
	}
	return u.store, nil
}

// Get implements [object.Reader].
func (u *unavailable) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s, err := u.get()
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, key, offset, length)
}

// Stat implements [object.Reader].
func (u *unavailable) Stat(ctx context.Context, key string) (object.Info, error) {
	s, err := u.get()
	if err != nil {
		return object.Info{}, err
	}
	return s.Stat(ctx, key)
}

// List implements [object.Reader].
func (u *unavailable) List(ctx context.Context, prefix string, o object.ListOptions, fn func(object.Info) error) error {
	s, err := u.get()
	if err != nil {
		return err
	}
	return s.List(ctx, prefix, o, fn)
}

// Put implements [object.Store].
func (u *unavailable) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	s, err := u.get()
	if err != nil {
		return object.Info{}, err
	}
	return s.Put(ctx, key, body, o)
}

// Delete implements [object.Store].
func (u *unavailable) Delete(ctx context.Context, keys ...string) error {
	s, err := u.get()
	if err != nil {
		return err
	}
	return s.Delete(ctx, keys...)
}

// String names the place as it is configured.
func (u *unavailable) String() string { return u.place }

// Close closes the store, if it was opened.
func (u *unavailable) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open = nil
	if u.store == nil {
		return nil
	}
	return u.store.Close()
}
