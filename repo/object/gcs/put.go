package gcs

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"time"

	"cloud.google.com/go/storage"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// Put implements object.Store.
func (s *store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	if err := object.CheckPut(key, opts); err != nil {
		return object.Info{}, err
	}
	handle := s.bucket.Object(key)
	if opts.IfAbsent {
		handle = handle.If(storage.Conditions{DoesNotExist: true})
	}
	if opts.IfMatch != "" {
		generation, err := strconv.ParseInt(opts.IfMatch, 10, 64)
		if err != nil || generation <= 0 {
			// No version of ours, so certainly not the current one.
			return object.Info{}, fmt.Errorf("put %s in %s: %w", key, s.place, object.ErrChanged)
		}
		handle = handle.If(storage.Conditions{GenerationMatch: generation})
	}
	size := s.chunk
	if opts.Size > 0 {
		size = min(opts.Size, s.chunk)
	}
	first := s.buffers.Get(size)
	b := cloud.NewBody(body, opts.Size)
	n, more, err := b.Fill(first)
	if err != nil {
		return object.Info{}, s.fail("put", key, err)
	}
	// Ours may go back when the SDK has copied all of it, which it has when the
	// upload is over: it sends from a buffer of its own.
	defer s.buffers.Put(first)
	u := &upload{store: s, key: key, opts: opts, token: cloud.NewToken()}
	if !more {
		// Bounds what the SDK repeats until the context ends.
		tries := 0
		handle = handle.Retryer(storage.WithErrorFunc(func(err error) bool {
			tries++
			return tries < smallAttempts && storage.ShouldRetry(err)
		}))
	}
	attrs, err := u.send(ctx, handle, b, first, n, more)
	if err != nil {
		return u.settle(ctx, err)
	}
	s.seen.Store(true)
	return info(attrs), nil
}

// upload is one Put on its way.
type upload struct {
	*store
	key   string
	opts  object.PutOptions
	token string
}

// send uploads the first n bytes of buf, and then the rest of body through buf
// if there is more. The object comes into being with the request that the
// writer's Close sends; before that, an error or a killed process leaves
// nothing that anyone sees.
func (u *upload) send(ctx context.Context, handle *storage.ObjectHandle, body *cloud.Body, buf []byte, n int, more bool) (*storage.ObjectAttrs, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Armed only while the store has to do something, not while body does.
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()

	w := handle.NewWriter(ctx)
	w.ContentType = "application/octet-stream"
	w.Metadata = map[string]string{cloud.TokenKey: u.token}
	w.ChunkSize = int(u.chunk)
	w.ChunkRetryDeadline = chunkPatience
	if !more {
		// More than n, or the SDK would expect another chunk.
		w.ChunkSize = (n/chunkUnit + 1) * chunkUnit
		w.SendCRC32C, w.CRC32C = true, crc32.Checksum(buf[:n], castagnoli())
	}
	giveUp := func(err error) error {
		// In this order nothing can take what was sent so far for the whole.
		cancel(err)
		//lint:ignore SA1019 cancelling alone leaves a race
		_ = w.CloseWithError(err)
		_ = w.Close() // waits until the SDK is done
		return err
	}
	var size int64
	var sum uint32
	for {
		if n > 0 {
			watch.Reset(stall)
			if _, err := w.Write(buf[:n]); err != nil {
				return nil, giveUp(cause(ctx, err))
			}
			watch.Stop()
		}
		size += int64(n)
		sum = crc32.Update(sum, castagnoli(), buf[:n])
		if !more {
			break
		}
		var err error
		if n, more, err = body.Fill(buf); err != nil {
			return nil, giveUp(err)
		}
	}
	watch.Reset(stall)
	if err := w.Close(); err != nil {
		return nil, cause(ctx, err)
	}
	attrs := w.Attrs()
	if attrs.Size != size || attrs.CRC32C != sum {
		err := fmt.Errorf("the store keeps %d bytes with CRC-32C %08x, sent were %d with %08x", attrs.Size, attrs.CRC32C, size, sum)
		return nil, errors.Join(err, u.take(ctx, attrs.Generation))
	}
	return attrs, nil
}

// take removes a generation that was stored damaged.
func (u *upload) take(ctx context.Context, generation int64) error {
	return u.bucket.Object(u.key).If(storage.Conditions{GenerationMatch: generation}).Delete(ctx)
}

var errStalled = errors.New("the store did not take any data for too long")

// cause prefers the reason for which our own context was cancelled.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && errors.Is(err, context.Canceled) {
		return c
	}
	return err
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// settle decides what the failure of an upload means: lost to another writer,
// stored after all by an earlier try of the same request, or plainly failed.
func (u *upload) settle(ctx context.Context, err error) (object.Info, error) {
	// 304 is what Google's documentation gives for some kinds of condition.
	status := statusOf(err)
	if !u.opts.IfAbsent && u.opts.IfMatch == "" || status != http.StatusPreconditionFailed && status != http.StatusNotModified {
		if status == http.StatusNotFound {
			// There is no key to miss, and an upload session that is lost is
			// lost to a fault of the store.
			return object.Info{}, fmt.Errorf("put %s in %s: %w", u.key, u.place, u.lost(ctx, err))
		}
		return object.Info{}, u.fail("put", u.key, err)
	}
	attrs, statErr := u.bucket.Object(u.key).Attrs(ctx)
	if statErr == nil && attrs.Metadata[cloud.TokenKey] == u.token {
		return info(attrs), nil
	}
	lost := object.ErrChanged
	if u.opts.IfAbsent {
		lost = object.ErrExists
	}
	return object.Info{}, fmt.Errorf("put %s in %s: %w", u.key, u.place, lost)
}

// lost tells a missing bucket from an upload session that the store forgot.
func (u *upload) lost(ctx context.Context, err error) error {
	if _, statErr := u.Stat(ctx, u.key); errors.Is(statErr, errNoBucket) {
		return statErr
	}
	return err
}
