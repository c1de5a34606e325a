package retry

import (
	"context"
	"io"
	"io/fs"
)

// Get implements [object.Reader]. The reader goes on where a transfer broke.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r := &reader{store: s, key: key, at: offset, left: length, tries: s.tries(ctx, "get", key)}
	for {
		err := r.open()
		if err == nil {
			return r, nil
		}
		if err := r.tries.again(err); err != nil {
			return nil, err
		}
	}
}

// reader reads an object over as many transfers as it takes.
type reader struct {
	store *Store
	key   string
	at    int64 // offset of the next byte
	left  int64 // bytes still wanted; -1 is to the end
	tries *tries

	// The transfer that runs; body is nil between two.
	body  io.ReadCloser
	watch *watch
	err   error // how the last one broke, until it was decided about
	final error
}

// open begins a transfer of what is still wanted.
func (r *reader) open() error {
	ctx, w := r.store.watch(r.tries.ctx)
	body, err := r.store.Store.Get(ctx, r.key, r.at, r.left)
	w.pause()
	if err != nil {
		err = w.explain(err)
		w.stop()
		return err
	}
	r.body, r.watch = body, w
	return nil
}

// Read returns what one Read of the transfer returns. After a failure it first
// hands out the bytes that came with it; the next call tries again.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 || r.final != nil {
		return 0, r.final
	}
	for {
		if r.err != nil {
			if r.final = r.tries.again(r.err); r.final != nil {
				return 0, r.final
			}
			r.err = nil
		}
		if r.body == nil {
			if r.err = r.open(); r.err != nil {
				continue
			}
		}
		n, err := r.read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// read reads from the transfer that runs and ends it if it broke. Its error is
// io.EOF or nil; failures go to r.err.
func (r *reader) read(p []byte) (int, error) {
	r.watch.alive()
	n, err := r.body.Read(p)
	r.watch.pause()
	r.at += int64(n)
	if r.left >= 0 {
		r.left -= int64(n)
	}
	if n > 0 {
		r.tries.progress()
	}
	if err == nil {
		return n, nil
	}
	err = r.watch.explain(err)
	if err == io.EOF || r.left == 0 { // broke behind the last byte: not our loss
		r.final = io.EOF
		return n, io.EOF
	}
	r.err = err
	_ = r.end() // it is broken already
	return n, nil
}

// end ends the transfer that runs.
func (r *reader) end() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.watch.stop()
	r.body = nil
	return err
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.final = fs.ErrClosed
	return r.end()
}
