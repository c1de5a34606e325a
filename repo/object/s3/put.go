package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithy "github.com/aws/smithy-go/middleware"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// upload is one Put on its way.
type upload struct {
	*store
	key    string
	opts   object.PutOptions
	token  string
	absent *string // If-None-Match
	match  *string // If-Match
}

// Put implements object.Store. The Modified time of what it returns is the date
// of the store's answer.
func (s *store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	if err := object.CheckPut(key, opts); err != nil {
		return object.Info{}, err
	}
	u := &upload{store: s, key: key, opts: opts, token: cloud.NewToken()}
	if opts.IfAbsent {
		u.absent = aws.String("*")
	}
	if opts.IfMatch != "" {
		u.match = &opts.IfMatch
	}
	b := cloud.NewBody(body, opts.Size)
	first := s.parts.Buffers.Get(s.parts.First(opts.Size))
	n, more, err := b.Fill(first)
	if err != nil {
		return object.Info{}, s.fail("put", key, err)
	}
	if more {
		return u.multipart(ctx, b, first)
	}
	info, err := u.single(ctx, first[:n])
	if err == nil {
		s.parts.Buffers.Put(first)
	}
	return info, err
}

// single stores data with one request.
func (u *upload) single(ctx context.Context, data []byte) (object.Info, error) {
	out, err := u.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &u.bucket, Key: &u.key, Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
		IfNoneMatch: u.absent, IfMatch: u.match, Metadata: u.metadata(),
	}, patient)
	if err != nil {
		return u.settle(ctx, err)
	}
	return u.done(ctx, int64(len(data)), out.ETag, out.ResultMetadata)
}

// multipart stores first and the rest of the body as parts. Until the last
// request, CompleteMultipartUpload, the key is as it was, and that request
// changes it at once: so an upload that ends anywhere leaves nothing but parts
// that no one sees, which are aborted here.
func (u *upload) multipart(ctx context.Context, body *cloud.Body, first []byte) (object.Info, error) {
	created, err := u.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, Metadata: u.metadata(),
	}, patient)
	if err != nil {
		return object.Info{}, u.fail("put", u.key, err)
	}
	id := created.UploadId
	parts, size, err := u.sendParts(ctx, id, body, first)
	if err != nil {
		_, abortErr := u.abort(ctx, id)
		return object.Info{}, errors.Join(u.fail("put", u.key, err), abortErr)
	}
	out, err := u.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, UploadId: id, IfNoneMatch: u.absent, IfMatch: u.match,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}, patient)
	if err == nil {
		return u.done(ctx, size, out.ETag, out.ResultMetadata)
	}
	gone, abortErr := u.abort(ctx, id)
	if gone && ctx.Err() == nil {
		// Nothing to abort: the answer to a successful request was lost.
		if info, token, err := u.head(ctx, "put", u.key); err == nil && token == u.token {
			return info, nil
		}
	}
	info, err := u.settle(ctx, err)
	return info, errors.Join(err, abortErr)
}

// sendParts returns what was stored as parts, in order, and their bytes.
func (u *upload) sendParts(ctx context.Context, id *string, body *cloud.Body, first []byte) ([]types.CompletedPart, int64, error) {
	var (
		mu    sync.Mutex // guards parts and size
		parts []types.CompletedPart
		size  int64
	)
	err := u.parts.Send(ctx, body, first, u.opts.Size, func(ctx context.Context, number int, part []byte) error {
		n := int32(number)
		out, err := u.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &u.bucket, Key: &u.key, UploadId: id, PartNumber: &n,
			Body: bytes.NewReader(part), ContentLength: aws.Int64(int64(len(part))),
		}, patient)
		if err != nil {
			return fmt.Errorf("part %d: %w", number, err)
		}
		mu.Lock()
		defer mu.Unlock()
		parts = append(parts, types.CompletedPart{ETag: out.ETag, PartNumber: &n})
		size += int64(len(part))
		return nil
	})
	slices.SortFunc(parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	return parts, size, err
}

// abort clears away the parts of an upload. gone means that the store does not
// know the upload.
func (u *upload) abort(ctx context.Context, id *string) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err = u.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, UploadId: id,
	})
	if code, status, _ := answer(err); err != nil && (code == "NoSuchUpload" || status == http.StatusNotFound) {
		return true, nil
	}
	if err != nil {
		return false, u.fail("abort the upload of", u.key, err)
	}
	return false, nil
}

func (u *upload) metadata() map[string]string { return map[string]string{cloud.TokenKey: u.token} }

// done describes what was stored. A few stores leave out the ETag.
func (u *upload) done(ctx context.Context, size int64, etag *string, meta smithy.Metadata) (object.Info, error) {
	u.seen.Store(true)
	at, ok := middleware.GetServerTime(meta)
	if aws.ToString(etag) == "" || !ok {
		info, _, err := u.head(ctx, "put", u.key)
		return info, err
	}
	return object.Info{Key: u.key, Size: size, Modified: at.Truncate(time.Second), Version: *etag}, nil
}

// settle decides what the failure of the storing request means: lost to
// another writer, stored after all by an earlier try of the same request, or
// plainly failed.
func (u *upload) settle(ctx context.Context, err error) (object.Info, error) {
	code, status, _ := answer(err)
	conditional := u.opts.IfAbsent || u.opts.IfMatch != ""
	failed := status == http.StatusPreconditionFailed
	conflict := status == http.StatusConflict && code == "ConditionalRequestConflict"
	gone := u.opts.IfMatch != "" && status == http.StatusNotFound && code != "NoSuchBucket" && code != "NoSuchUpload"
	switch {
	case conditional && status == http.StatusNotImplemented:
		err = object.Permanent(fmt.Errorf("the store does not know conditional writes: %w", err))
		return object.Info{}, u.fail("put", u.key, err)
	case !conditional || !failed && !conflict && !gone:
		return object.Info{}, u.fail("put", u.key, err)
	}
	info, token, headErr := u.head(ctx, "put", u.key)
	found := headErr == nil
	switch {
	case headErr != nil && !errors.Is(headErr, object.ErrNotFound):
		return object.Info{}, headErr
	case found && token == u.token:
		return info, nil
	case u.opts.IfAbsent && (failed || found):
		return object.Info{}, fmt.Errorf("put %s in %s: %w", u.key, u.place, object.ErrExists)
	case u.opts.IfMatch != "" && (failed || gone || !found || info.Version != u.opts.IfMatch):
		return object.Info{}, fmt.Errorf("put %s in %s: %w", u.key, u.place, object.ErrChanged)
	}
	// Another writer was under way and has not stored anything: try again.
	return object.Info{}, u.fail("put", u.key, err)
}
