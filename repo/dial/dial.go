// Package dial turns the configuration of a repository into the repository:
// the driver of its store, the wrappers around it, and its age keys.
//
// A request goes through these, from the outside in:
//
//	prefix   the cluster's own part of the bucket
//	retry    again after a failure that may pass
//	limit    requests in flight, bytes in a second
//	driver   s3, gcs, azure or filesystem
//
// retry stands outside limit, so that a request that waits for its next
// attempt holds no place among those in flight.
//
// It is apart from package repo so that repo does not depend on the cloud
// SDKs, and apart from config so that reading a file does not either.
package dial

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// Options are what a repository needs besides its own configuration.
type Options struct {
	Cluster string           // required
	Clock   func() time.Time // nil: time.Now
	Log     *zap.Logger      // nil: none
	// Patience, if set, bounds how long a request is tried, where the
	// configuration allows more: for what a person waits for.
	Patience time.Duration
	// Cloud opens the drivers of cloud stores: cloud.Open. Without it only
	// repositories on file systems can be opened.
	Cloud func(context.Context, config.Repo) (object.Store, error)
}

// Open makes the repository of c, which config has checked and completed. It
// reads key files, and asks nothing of the store. What goes wrong with one of
// these (a file that is missing, a directory that is not mounted) is the
// answer to every request to the store, and no error here; the store is opened
// as soon as it can be. Close the repository's Store when done.
func Open(ctx context.Context, c config.Repo, o Options) (*repo.Repository, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.Log = o.Log.With(zap.String("repo", c.Name))
	ro := repo.Options{
		Name:    c.Name,
		Codec:   codec.Codec{Name: codec.Name(c.Compression.Codec), Level: c.Compression.Level},
		Cluster: o.Cluster,
		Clock:   o.Clock,
		Log:     o.Log,
	}
	var err error
	if ro.Keys, err = readKeys(c.Encryption, o.Log); err != nil {
		// Without keys nothing is written that should be encrypted: this store
		// takes nothing.
		ro.Store = &unavailable{place: place(c), err: err}
	} else if ro.Store, err = openStore(ctx, c, o); err != nil {
		again := func() (object.Store, error) { return openStore(context.WithoutCancel(ctx), c, o) }
		ro.Store = &unavailable{place: place(c), err: err, open: again, tried: time.Now()}
	}
	r, err := repo.Open(ro)
	if err != nil {
		return nil, errors.Join(err, ro.Store.Close())
	}
	return r, nil
}

// place names a store that could not be opened.
func place(c config.Repo) string {
	switch {
	case c.S3 != nil:
		return "s3://" + c.S3.Bucket + "/" + c.Prefix
	case c.GCS != nil:
		return "gs://" + c.GCS.Bucket + "/" + c.Prefix
	case c.Azure != nil:
		return "azure://" + c.Azure.Account + "/" + c.Azure.Container + "/" + c.Prefix
	case c.Filesystem != nil:
		return "filesystem:" + c.Filesystem.Path + "/" + c.Prefix
	}
	return "nowhere"
}

// openStore is the driver in its wrappers.
func openStore(ctx context.Context, c config.Repo, o Options) (object.Store, error) {
	store, err := openDriver(ctx, c, o)
	if err != nil {
		return nil, err
	}
	wrapped, err := wrap(store, c, o)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return wrapped, nil
}

func openDriver(ctx context.Context, c config.Repo, o Options) (object.Store, error) {
	if c.Filesystem != nil {
		return filesystem.New(filesystem.Options{Path: c.Filesystem.Path, Create: c.Filesystem.Create})
	}
	if o.Cloud == nil {
		return nil, errors.New("this program has no drivers for cloud stores")
	}
	return o.Cloud(ctx, c)
}
