package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walkeep/walkeep/repo/object"
)

// Put implements [object.Store]. The package comment says when a body is sent
// again, and what becomes of a conditional Put whose answer was lost.
func (s *Store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	source := newSource(body)
	var stored object.Info
	t := s.tries(ctx, "put", key)
	err := t.do(func(ctx context.Context, w *watch) error {
		if err := source.rewind(); err != nil {
			return object.Permanent(fmt.Errorf("put %s again: %w", key, err))
		}
		info, err := s.Store.Put(ctx, key, source.reader(w), opts)
		stored, err = info, w.explain(err)
		switch {
		case err == nil:
			return nil
		case source.sent && lostRace(err, opts):
			w.pause() // what follows has watches of its own
			ours, unknown := s.isOurs(t.ctx, key, source, &stored)
			if unknown != nil {
				// Not err: we do not know that somebody else was first.
				return object.Permanent(fmt.Errorf("put %s: find out whether an attempt succeeded: %w", key, unknown))
			}
			if ours {
				return nil
			}
			return err
		case source.err != nil || !source.repeatable():
			return object.Permanent(err)
		}
		return errors.Join(err, source.note())
	})
	if err != nil {
		return object.Info{}, err
	}
	return stored, nil
}

// lostRace reports whether err is the one that a Put gets after an attempt of
// its own that succeeded in secret.
func lostRace(err error, opts object.PutOptions) bool {
	return opts.IfAbsent && errors.Is(err, object.ErrExists) ||
		opts.IfMatch != "" && errors.Is(err, object.ErrChanged)
}

// isOurs compares what is stored under key with the body, and describes it. The
// version is asked for before and after, so that it belongs to what was read.
func (s *Store) isOurs(ctx context.Context, key string, source *source, stored *object.Info) (bool, error) {
	info, err := s.Stat(ctx, key)
	if errors.Is(err, object.ErrNotFound) {
		return false, nil // whoever put it, it is gone
	}
	if err != nil {
		return false, err
	}
	size, err := source.size()
	if err != nil || size != info.Size {
		return false, err
	}
	same, err := s.compare(ctx, key, source)
	if err != nil || !same {
		return false, err
	}
	still, err := s.Stat(ctx, key)
	*stored = still
	return err == nil && still.Version == info.Version, err
}

// compare reports whether the object holds the bytes of the body.
func (s *Store) compare(ctx context.Context, key string, source *source) (bool, error) {
	if err := source.rewind(); err != nil {
		return false, err
	}
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return false, fmt.Errorf("read %s back: %w", key, err)
	}
	defer r.Close() //nolint:errcheck // read only
	stored, sent := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, stored)
		atEnd := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !atEnd {
			return false, fmt.Errorf("read %s back: %w", key, err)
		}
		m, err := io.ReadFull(source.body, sent)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		if !bytes.Equal(stored[:n], sent[:m]) {
			return false, nil
		}
		if atEnd {
			return true, nil
		}
	}
}

// source is the body of a Put, which may be sent several times.
type source struct {
	body   io.Reader
	seeker io.Seeker // body, or nil
	start  int64     // where body stood at first
	moved  bool      // it may stand elsewhere now
	at     int64     // where it stands now, if it is a seeker
	far    int64     // the farthest that it was read
	ended  bool      // it was read to its end
	sent   bool      // an attempt that failed had all of it, and so may have stored it
	err    error     // body's own failure
}

func newSource(body io.Reader) *source {
	s := &source{body: body}
	if seeker, ok := body.(io.Seeker); ok {
		// Some are seekers by type only, as an *os.File that is a pipe.
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			s.seeker, s.start, s.at, s.far = seeker, start, start, start
		}
	}
	return s
}

// repeatable reports whether the body can be sent (again).
func (s *source) repeatable() bool { return s.seeker != nil || !s.moved }

// rewind goes back to where the body stood at first.
func (s *source) rewind() error {
	if !s.moved {
		return nil
	}
	s.moved = false
	s.at = s.start
	_, err := s.seeker.Seek(s.start, io.SeekStart)
	return err
}

// note notes, after an attempt that failed, whether it may have succeeded in
// secret: not without the last byte.
func (s *source) note() error {
	if s.seeker == nil || !s.moved || s.sent {
		return nil
	}
	size, err := s.size()
	s.sent = s.ended || s.far >= s.start+size
	if err != nil {
		return object.Permanent(err)
	}
	return nil
}

// size returns how many bytes the body has in all.
func (s *source) size() (int64, error) {
	end, err := s.seeker.Seek(0, io.SeekEnd)
	s.moved = true
	return end - s.start, err
}

// reader returns the body for one attempt. It can seek if the body can.
func (s *source) reader(w *watch) io.Reader {
	r := &sending{source: s, watch: w}
	if s.seeker == nil {
		return r
	}
	return struct {
		io.Reader
		io.Seeker
	}{r, r}
}

// sending is a body that is read by the store. While it is, the store is not to
// blame for the time that passes.
type sending struct {
	source *source
	watch  *watch
}

func (s *sending) Read(p []byte) (int, error) {
	s.source.moved = true
	s.watch.pause()
	n, err := s.source.body.Read(p)
	s.watch.alive()
	s.source.at += int64(n)
	s.source.far = max(s.source.far, s.source.at)
	switch err {
	case nil:
	case io.EOF:
		s.source.ended = true
	default:
		s.source.err = err
	}
	return n, err
}

func (s *sending) Seek(offset int64, whence int) (int64, error) {
	s.source.moved = true
	at, err := s.source.seeker.Seek(offset, whence)
	if err == nil {
		s.source.at = at
	}
	return at, err
}
