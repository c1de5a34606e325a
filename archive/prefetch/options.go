package prefetch

import (
	"errors"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// DefaultSize bounds a spool when nothing else is said, bytes.
const DefaultSize = 128 << 20

// DefaultDir is the name of the directory with the spools, beside the data
// directory: on the same file system, most often, so that handing a segment
// over is a rename.
const DefaultDir = ".walkeep-spool"

// Options of a Getter and a Prefetcher. Those for one recovery must agree in
// Path and Origin.
type Options struct {
	// Path is the directory with the spools, absolute. "": DefaultDir beside
	// the data directory.
	Path string
	// Off: nothing is prefetched.
	Off bool
	// Size bounds one spool, bytes; 0 = DefaultSize. Less than one segment:
	// nothing is prefetched.
	Size int64
	// Origin tells where segments come from: the cluster and its repositories.
	// A spool that was filled from another origin is not looked at.
	Origin string
	// Workers is how many segments are fetched at a time; 0 = 4.
	Workers int
	// Idle is how long a prefetcher stays when nothing is asked; 0 = 60 s.
	Idle time.Duration
	// Patience is how long a getter waits for a segment that arrives at the
	// prefetcher at that moment, before it gets it itself; 0 = 10 s.
	Patience time.Duration
	Log      *zap.Logger // nil: none
}

func (o Options) withDefaults() Options {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Idle == 0 {
		o.Idle = time.Minute
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

// base is the directory with the spools, for a data directory without links.
func (o Options) base(pgdata string) string {
	if o.Path != "" {
		return o.Path
	}
	return filepath.Join(filepath.Dir(pgdata), DefaultDir)
}

// ErrRunning: another prefetcher fills this spool.
var ErrRunning = errors.New("another prefetcher is running")

// ErrNoRecovery: there is nothing here to prefetch for: no data directory, or
// segments larger than the spool.
var ErrNoRecovery = errors.New("nothing to prefetch for")
