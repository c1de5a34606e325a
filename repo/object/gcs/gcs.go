// Package gcs keeps objects in a bucket of Google Cloud Storage.
//
// # Uploads
//
// A body that ends within the first chunk (8 MiB unless configured) is stored
// with one request that carries its CRC-32C. Anything longer is a resumable
// upload, sent chunk after chunk while the body is being read; its CRC-32C goes
// with the last chunk. Google sees an object when the last chunk has arrived
// and never before; an upload that is given up is forgotten by the store after
// a week, and costs nothing. Cancelling the context of the writer is how the
// SDK gives up, and a failed Put waits until that has happened.
//
// One Put holds at most two chunks in memory: ours, and the SDK's, from which
// it repeats a failed request.
//
// # Conditions
//
// IfAbsent is "generation match 0", IfMatch is "generation match" with the
// version's generation. When the condition does not hold, the object is looked
// at once: it may be our own, stored by a request whose answer was lost and
// that the SDK repeated (every upload carries a random mark in its metadata).
//
// # The emulator
//
// fake-gcs-server 1.56.1, against which the tests run, honours both conditions
// in both kinds of upload under one lock. It differs from Google in these ways,
// found in its source and by tests: a Put into a missing bucket creates the
// bucket; a chunk that is sent twice is appended twice, without a look at its
// offset; giving up an upload is answered with 499 and frees no memory; it
// knows no credentials.
package gcs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

const (
	chunkUnit        = 256 << 10 // Google's: chunks are multiples of it
	defaultChunkSize = 8 << 20
	maxChunkSize     = 1 << 30

	attempts      = 3 // of all requests but those of uploads
	smallAttempts = 5 // of an upload in one request
	// chunkPatience is how long one chunk of a resumable upload is repeated.
	chunkPatience = 2 * time.Minute
	// stall is how long an upload may go without taking more of the body.
	stall = 10 * time.Minute

	deletesAtOnce = 16 // deletes in flight; the JSON API has no batch in the SDK
)

// store is an object.Store in one bucket.
type store struct {
	client    *storage.Client
	bucket    *storage.BucketHandle
	transport *cloud.Transport
	name      string
	place     string // for people
	chunk     int64
	page      int // keys per page of a listing; 0: as the store likes
	buffers   *cloud.Buffers
	// seen is set once the bucket is known to exist, see missing.
	seen atomic.Bool
}

// New returns the Store of one bucket. It reads files, but sends nothing: a
// wrong name or key shows with the first request.
func New(ctx context.Context, opts Options) (object.Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (object.Store, error) {
		return nil, fmt.Errorf("gcs bucket %s: %w", opts.Bucket, err)
	}
	transport, err := cloud.NewTransport(opts.CAFile)
	if err != nil {
		return fail(err)
	}
	signed, err := authenticate(opts, transport)
	if err != nil {
		return fail(err)
	}
	clientOpts := []option.ClientOption{
		option.WithHTTPClient(&http.Client{Transport: signed}), storage.WithJSONReads(),
	}
	place := "gs://" + opts.Bucket
	if opts.Endpoint != "" {
		u, err := cloud.Endpoint(opts.Endpoint)
		if err != nil {
			return fail(err)
		}
		if u.Path == "" {
			u.Path = "/storage/v1"
		}
		clientOpts = append(clientOpts, option.WithEndpoint(u.String()+"/"))
		place += " at " + opts.Endpoint
	}
	client, err := storage.NewClient(ctx, clientOpts...)
	if err != nil {
		return fail(err)
	}
	client.SetRetry(
		storage.WithPolicy(storage.RetryAlways), // everything we ask may be asked twice
		storage.WithMaxAttempts(attempts),
		storage.WithBackoff(gax.Backoff{Initial: 500 * time.Millisecond, Max: 15 * time.Second, Multiplier: 2}),
	)
	return &store{
		client: client, bucket: client.Bucket(opts.Bucket), transport: transport,
		name: opts.Bucket, place: place, chunk: opts.ChunkSize, buffers: cloud.NewBuffers(opts.ChunkSize),
	}, nil
}

// String names the bucket.
func (s *store) String() string { return s.place }

// Close ends idle connections.
func (s *store) Close() error {
	err := s.client.Close()
	s.transport.CloseIdleConnections()
	return err
}

// fail wraps err with what was tried and where, translated by classify.
func (s *store) fail(verb, key string, err error) error {
	return fmt.Errorf("%s %s in %s: %w", verb, key, s.place, classify(err))
}

// failKey is fail for requests about one key, whose 404 may also mean that
// there is no such bucket: "no such object" must be certain.
func (s *store) failKey(ctx context.Context, verb, key string, err error) error {
	if !errors.Is(classify(err), object.ErrNotFound) || s.seen.Load() {
		return s.fail(verb, key, err)
	}
	it := s.bucket.Objects(ctx, &storage.Query{Projection: storage.ProjectionNoACL})
	it.PageInfo().MaxSize = 1
	_, listErr := it.Next()
	if listErr = classifyBucket(listErr); listErr != nil && listErr != iterator.Done && !errors.Is(listErr, object.ErrDenied) {
		return fmt.Errorf("%s %s in %s: %w", verb, key, s.place, listErr)
	}
	s.seen.Store(true)
	return s.fail(verb, key, err)
}
