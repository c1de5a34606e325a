// Package s3 keeps objects in a bucket of Amazon S3, or of a store that speaks
// its protocol.
//
// # Large objects
//
// A body that ends within the first part (8 MiB unless configured) is stored
// with one PutObject; anything longer is a multipart upload whose parts are
// sent while the body is still being read. An upload of known size is cut
// evenly into at most 10,000 parts; when the size is not known, parts double
// after every thousand, so that no object outgrows the 10,000 parts that S3
// allows. One Put holds at most Options.PartsInFlight × Options.PartSize bytes.
// A failed upload is aborted with a short context of its own; what a killed
// process leaves behind is aborted by the next expiry (AbortUploads), which needs
// the permissions s3:ListBucketMultipartUploads and s3:AbortMultipartUpload, or by
// a lifecycle rule of the bucket (AbortIncompleteMultipartUpload).
//
// # Conditions
//
// IfAbsent is If-None-Match: *, IfMatch is If-Match with the ETag, on PutObject
// and on CompleteMultipartUpload. S3 answers 412 when the condition does not
// hold, 409 when another write of the key is in progress, and 404 to If-Match
// when the key is gone. After such an answer the object is looked at once: it
// may be our own, stored by a request whose answer was lost and that the SDK
// repeated (every upload carries a random mark in its metadata for this).
//
// versitygw 1.8.0, against which the tests run, honours both conditions on both
// requests, also in races: its posix back end evaluates them again under a lock
// per object just before the final link, and TestConditionsOnMultipart,
// TestRaceOfMultipartUploads and the conformance suite see exactly one winner.
// Its one fault so far: a CreateMultipartUpload that races with the end of
// another upload of the key may be answered with 500 ("make parent dir: no such
// file", seen in its log), which the SDK repeats. A store that does not know the
// headers answers 501, which becomes a clear error, or ignores them, which only
// a race can show ("walkeep check" runs one).
//
// # Integrity
//
// Requests are signed with the SHA-256 of their payload, which the store
// verifies; so the SDK's own default, CRC-32 trailers that many compatible
// stores reject, is turned off. Where S3 wants a checksum (DeleteObjects) it
// gets Content-MD5, which all of them know. Downloads are checked for length
// here and for content by whoever reads them.
//
// # Retries
//
// The SDK repeats a failed request: up to 8 times for parts of an upload, since
// a streamed body cannot be read again above, and 3 times for all else, which
// package retry repeats.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

const (
	minPartSize     = 5 << 20 // S3 refuses smaller ones, but for the last
	maxPartSize     = 5 << 30
	defaultPartSize = 8 << 20
	maxParts        = 10_000

	defaultPartsInFlight = 3

	attempts     = 3
	partAttempts = 8
	maxBackoff   = 15 * time.Second

	// abortTimeout bounds the clearing away of a failed upload, which also
	// runs when the caller's context is done.
	abortTimeout = 15 * time.Second
)

// store is an object.Store in one bucket.
type store struct {
	client    *s3.Client
	transport *cloud.Transport
	bucket    string
	place     string // for people
	parts     cloud.Parts
	// seen is set once the bucket is known to exist, see missing.
	seen atomic.Bool
	// noBatch is set once the store refused DeleteObjects.
	noBatch atomic.Bool
}

// New returns the Store of one bucket. It reads files, but sends nothing: a
// wrong name or key shows with the first request.
func New(ctx context.Context, opts Options) (object.Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg, transport, err := loadConfig(ctx, opts)
	if err != nil {
		return nil, err
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = opts.PathStyle
		o.HTTPClient = &http.Client{Transport: transport, CheckRedirect: sameMethod}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		// "Expect: 100-continue" costs a second per request at stores that do
		// not answer it.
		o.ContinueHeaderThresholdBytes = -1
		o.Retryer = retryer(attempts)
	})
	place := "s3://" + opts.Bucket
	if opts.Endpoint != "" {
		place += " at " + opts.Endpoint
	}
	return &store{
		client: client, transport: transport, bucket: opts.Bucket, place: place,
		parts: cloud.Parts{
			Size: opts.PartSize, Max: maxPartSize, Count: maxParts,
			InFlight: opts.PartsInFlight, Buffers: cloud.NewBuffers(opts.PartSize),
		},
	}, nil
}

// retryer repeats a request up to n times in all. It has no token bucket across
// requests: a backup under throttling would empty it and fail.
func retryer(n int) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = n
		o.MaxBackoff = maxBackoff
		o.RateLimiter = ratelimit.None
	})
}

// patient makes one call repeat as often as parts are.
func patient(o *s3.Options) { o.Retryer = retryer(partAttempts) }

// sameMethod follows only those redirects that keep the method, as the SDK's
// own client does; the others carry S3's error document.
func sameMethod(r *http.Request, via []*http.Request) error {
	if code := r.Response.StatusCode; code != http.StatusTemporaryRedirect && code != http.StatusPermanentRedirect {
		return http.ErrUseLastResponse
	}
	if len(via) > 3 || r.URL.Host != via[0].URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// String names the bucket.
func (s *store) String() string { return s.place }

// Close ends idle connections.
func (s *store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// fail wraps err with what was tried and where, translated by classify.
func (s *store) fail(verb, key string, err error) error {
	return fmt.Errorf("%s %s in %s: %w", verb, key, s.place, classify(err))
}

// missing turns the 404 of a request about one key into ErrNotFound, but only
// if the bucket is there: a HEAD has no body that would tell the two apart, and
// "no such object" must be certain.
func (s *store) missing(ctx context.Context, verb, key string) error {
	if !s.seen.Load() {
		one := int32(1)
		_, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, MaxKeys: &one})
		// Who may not list can still be told that the key is not there.
		if err = classify(err); err != nil && !errors.Is(err, object.ErrDenied) {
			return fmt.Errorf("%s %s in %s: %w", verb, key, s.place, err)
		}
		s.seen.Store(true)
	}
	return fmt.Errorf("%s %s in %s: %w", verb, key, s.place, object.ErrNotFound)
}
