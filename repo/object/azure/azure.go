// Package azure keeps objects as block blobs in a container of Azure Blob
// Storage.
//
// # Large objects
//
// A body that ends within the first block (8 MiB unless configured) is stored
// with one Put Blob; anything longer is staged as blocks, while it is still
// being read, and comes into being with Put Block List. A blob of known size is
// cut evenly into at most 50,000 blocks; when the size is not known, blocks
// double after every five thousand. One Put holds at most
// Options.BlocksInFlight × Options.BlockSize bytes. Staged blocks that are
// never committed need no clearing away: Azure drops them after a week.
//
// All writers of one name share its staged blocks, and a commit throws away
// those that it does not name. Block ids therefore begin with random bytes, so
// that racing writers cannot mix; and a commit whose blocks were thrown away by
// another writer's commit fails with InvalidBlockList, which here is treated as
// the race that it is.
//
// # Conditions
//
// IfAbsent is If-None-Match: *, IfMatch is If-Match with the ETag, on Put Blob
// and Put Block List. When the condition does not hold (409 or 412), the blob is
// looked at once: it may be our own, stored by a request whose answer was lost
// and that the SDK repeated (every upload carries a random mark in its
// metadata).
//
// # Listing
//
// ListOptions.After becomes startFrom, which Azure knows since protocol version
// 2026-02-06 (the full name to begin with, inclusive); where it is ignored, what
// comes before is skipped here. The order is that of an account without
// hierarchical namespace; another order is reported as an error.
//
// # The emulator
//
// Azurite 3.37, against which the tests run, honours both conditions and
// startFrom, verifies CRC-64 and takes batches. Put Blob with If-None-Match: *
// wrongly fails with 409 where a name has staged blocks but no blob (its
// createBlob looks at the entry, its commitBlockList also at whether that is
// committed); so an IfAbsent that fails while nothing is there is stored as one
// block and a block list, see TestStagedBlocksAreNoBlob. That costs a store
// without the fault nothing.
package azure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

const (
	minBlockSize     = 64 << 10
	maxBlockSize     = 4000 << 20 // Azure's
	defaultBlockSize = 8 << 20
	maxBlocks        = 50_000

	defaultBlocksInFlight = 3

	retries      = 2 // of all requests but those of uploads
	blockRetries = 7
	retryDelay   = 800 * time.Millisecond
	maxDelay     = 15 * time.Second
)

// store is an object.Store in one container.
type store struct {
	client    *container.Client
	transport *cloud.Transport
	place     string // for people
	parts     cloud.Parts
	page      int32 // names per page of a listing; 0: as the store likes
	// noBatch is set once the store refused a batch.
	noBatch atomic.Bool
}

// New returns the Store of one container. It reads files, but sends nothing: a
// wrong name or key shows with the first request.
func New(_ context.Context, opts Options) (object.Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (object.Store, error) {
		return nil, fmt.Errorf("azure container %s: %w", opts.Container, err)
	}
	transport, err := cloud.NewTransport(opts.CAFile)
	if err != nil {
		return fail(err)
	}
	service, err := serviceURL(opts)
	if err != nil {
		return fail(err)
	}
	client, err := newClient(opts, service.JoinPath(opts.Container), transport)
	if err != nil {
		return fail(err)
	}
	place := "azure://" + opts.Account + "/" + opts.Container
	if opts.Endpoint != "" {
		place += " at " + opts.Endpoint
	}
	return &store{
		client: client, transport: transport, place: place,
		parts: cloud.Parts{
			Size: opts.BlockSize, Max: maxBlockSize, Count: maxBlocks,
			InFlight: opts.BlocksInFlight, Buffers: cloud.NewBuffers(opts.BlockSize),
		},
	}, nil
}

// serviceURL is where the account's blob service answers.
func serviceURL(opts Options) (*url.URL, error) {
	if opts.Endpoint == "" {
		return cloud.Endpoint(opts.Account + ".blob.core.windows.net")
	}
	u, err := cloud.Endpoint(opts.Endpoint)
	if err != nil {
		return nil, err
	}
	if u.Path == "" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()) != nil) {
		u.Path = "/" + opts.Account
	}
	return u, nil
}

// newClient signs in with what opts name.
func newClient(opts Options, place *url.URL, transport *cloud.Transport) (*container.Client, error) {
	core := azcore.ClientOptions{
		Transport: &http.Client{Transport: transport},
		Retry:     policy.RetryOptions{MaxRetries: retries, RetryDelay: retryDelay, MaxRetryDelay: maxDelay},
	}
	clientOpts := &container.ClientOptions{ClientOptions: core}
	switch {
	case opts.KeyFile != "":
		key, err := cloud.Secret(opts.KeyFile)
		if err != nil {
			return nil, err
		}
		cred, err := container.NewSharedKeyCredential(opts.Account, key)
		if err != nil {
			// The SDK's message is about base64 and may quote the key.
			return nil, fmt.Errorf("key file %s: %w", opts.KeyFile, errors.New("not a base64 account key"))
		}
		return container.NewClientWithSharedKeyCredential(place.String(), cred, clientOpts)
	case opts.SASFile != "":
		sas, err := cloud.Secret(opts.SASFile)
		if err != nil {
			return nil, err
		}
		signed := *place
		signed.RawQuery = strings.TrimPrefix(sas, "?")
		if q, err := url.ParseQuery(signed.RawQuery); err != nil || q.Get("sig") == "" {
			return nil, fmt.Errorf("SAS file %s: %w", opts.SASFile, errors.New("not a shared access signature"))
		}
		return container.NewClientWithNoCredential(signed.String(), clientOpts)
	}
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: core.Transport},
	})
	if err != nil {
		return nil, fmt.Errorf("find Azure credentials: %w", err)
	}
	return container.NewClient(place.String(), cred, clientOpts)
}

// patient makes the calls under ctx repeat as often as blocks are: a streamed
// body cannot be read again above.
func patient(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{
		MaxRetries: blockRetries, RetryDelay: retryDelay, MaxRetryDelay: maxDelay,
	})
}

// String names the container.
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
