package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
)

// Format is the version of the repository format that this code writes, and
// the newest that it reads.
const Format = 1

// Options of Open. Store and Cluster are required.
type Options struct {
	Name    string           // as configured, "repo1"; for messages
	Store   object.Store     // already below the cluster's prefix
	Codec   codec.Codec      // zero: codec.Default
	Keys    *Keys            // nil: a plain repository
	Cluster string           // the configured cluster name
	Clock   func() time.Time // nil: time.Now
	Log     *zap.Logger      // nil: none
	TempDir string           // for spooled manifests; "": the system's
}

// Repository is one place that keeps the backups and WAL of one cluster. Its
// methods may be called from many goroutines.
type Repository struct {
	name    string
	store   object.Store
	codec   codec.Codec
	keys    *Keys
	cluster string
	clock   func() time.Time
	log     *zap.Logger
	tempDir string

	// manifestCodec is what manifests are compressed with, whatever packs are.
	// Fast: most of a manifest is digests, which do not compress.
	manifestCodec codec.Codec

	encoders sync.Pool   // of *codec.Encoder, for WAL that is streamed
	presses  chan *press // those that nobody uses

	owedMu sync.Mutex // guards owed
	owed   []*Lease   // released, but not given back: see GiveBack
}

// Marker is the object that says what this repository is.
type Marker struct {
	Format     int               `json:"format"`
	Cluster    string            `json:"cluster"`
	Created    time.Time         `json:"created"`
	Encryption *MarkerEncryption `json:"encryption,omitempty"` // absent: plain
}

// MarkerEncryption names whose identities can read an encrypted repository,
// as it was when the repository was made.
type MarkerEncryption struct {
	Recipients         []string `json:"recipients"`                    // of everything
	MetadataRecipients []string `json:"metadata_recipients,omitempty"` // of metadata, besides
}

// Open returns a repository without any I/O.
func Open(o Options) (*Repository, error) {
	if o.Store == nil || o.Cluster == "" {
		return nil, errors.New("open a repository: store and cluster name are required")
	}
	if o.Codec == (codec.Codec{}) {
		o.Codec = codec.Default()
	}
	if err := o.Codec.Validate(); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", o.Name, err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Repository{
		name: o.Name, store: o.Store, codec: o.Codec, keys: o.Keys, cluster: o.Cluster,
		clock: o.Clock, log: o.Log, tempDir: o.TempDir,
		manifestCodec: codec.Codec{Name: codec.Zstd, Level: 1}, presses: newPresses(),
	}, nil
}

// Name is the configured name, "repo1".
func (r *Repository) Name() string { return r.name }

// Cluster is the configured cluster name.
func (r *Repository) Cluster() string { return r.cluster }

// Store is the store below it.
func (r *Repository) Store() object.Store { return r.store }

// Codec is what new objects are compressed with.
func (r *Repository) Codec() codec.Codec { return r.codec }

// Encrypted reports whether new objects are encrypted.
func (r *Repository) Encrypted() bool { return r.keys != nil }

// Init writes the marker if there is none, and else checks that it fits the
// options (ErrMismatch). Everything that writes calls it first.
func (r *Repository) Init(ctx context.Context) error {
	_, err := r.Marker(ctx)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	m := Marker{Format: Format, Cluster: r.cluster, Created: r.clock().UTC()}
	if r.keys != nil {
		m.Encryption = &MarkerEncryption{Recipients: r.keys.data.names, MetadataRecipients: r.keys.extraNames}
	}
	_, err = r.putSealed(ctx, markerKey, m, false)
	if errors.Is(err, ErrExists) { // another was faster: is it of the same mind?
		_, err = r.Marker(ctx)
	}
	return err
}

// Marker reads the marker and checks it like Init, but writes nothing.
// ErrNotFound: nothing was ever stored here. Everything that only reads calls
// it first.
func (r *Repository) Marker(ctx context.Context) (Marker, error) {
	m, err := r.readMarker(ctx)
	if err != nil {
		return Marker{}, err
	}
	switch {
	case m.Cluster != r.cluster:
		return m, fmt.Errorf("%s at %s belongs to cluster %q, not %q: %w", r.name, r.store, m.Cluster, r.cluster, ErrMismatch)
	case m.Encryption != nil && r.keys == nil:
		return m, fmt.Errorf("%s at %s is encrypted, but no encryption is configured for it: %w", r.name, r.store, ErrMismatch)
	case m.Encryption == nil && r.keys != nil:
		return m, fmt.Errorf("%s at %s was begun without encryption, which cannot be changed: use another place: %w", r.name, r.store, ErrMismatch)
	}
	return m, nil
}

func (r *Repository) readMarker(ctx context.Context) (m Marker, err error) {
	if err = r.getSealed(ctx, markerKey, &m, false); err == nil {
		err = checkFormat(markerKey, m.Format)
	}
	return m, err
}
