package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/walkeep/walkeep/internal/cores"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// Server is the session with the server whose data directory is copied:
// a [*server.Conn]. The session belongs to the backup while Run runs; the
// caller closes it.
type Server interface {
	Node() string
	Info(context.Context) (server.Info, error)
	StartBackup(ctx context.Context, label string, fast bool) (server.StartResult, error)
	StopBackup(context.Context) (server.StopResult, error)
	KeepAlive(context.Context) (alive context.Context, stop func())
	CurrentLSN(context.Context) (pg.LSN, error)
	ReplayLSN(context.Context) (pg.LSN, error)
	Facts(context.Context) (server.Facts, error)
	Archiver(context.Context) (server.Archiver, error)
	Summaries(context.Context) ([]server.Summary, error)
	SummaryBlocks(context.Context, server.Summary, func(server.SummaryBlock)) error
}

// Switcher is a session with the primary, which can end a WAL segment: a
// [*server.Conn].
type Switcher interface {
	Node() string
	CurrentLSN(context.Context) (pg.LSN, error)
	SwitchWAL(context.Context) (server.Switch, error)
}

// ErrNothingNew: a standby has made no restartpoint since the backup on which
// another was to build, so that there is nothing that it could add.
var ErrNothingNew = errors.New("nothing to back up since the parent")

// DefaultArchiveTimeout is how long a finished copy waits for a segment.
const DefaultArchiveTimeout = 10 * time.Minute

// Limits and default of Options.Workers.
const (
	MaxWorkers         = 64
	mostDefaultWorkers = 8
)

// Options of Run. Repos, Source and Server are required.
type Options struct {
	Repos  []*repo.Repository // 1 to 4, with different names
	Source Source             // the data directory
	Server Server             // the server that runs in it
	// Primary is the primary when Server is a standby, so that it can be asked
	// to end the segment that the backup's end is in; nil if it is not known.
	Primary Switcher
	Node    string // its name in the configuration; for people
	// Push stores a complete file of the server's pg_wal in the i-th of Repos, as
	// archive_command does; nil if its files cannot be read here.
	Push func(ctx context.Context, i int, path string) error

	Type repo.BackupType // "": full
	// Detect is how changes are found; DetectBest takes the best way that can
	// be relied on. With any other, Run fails where that way is not possible.
	Detect      Detect
	Annotations map[string]string // kept in the summary

	// Workers is the number of units read and compressed at a time. 0:
	// DefaultWorkers.
	Workers int
	// SpreadCheckpoint lets the server take its time for the checkpoint that
	// a backup begins with, minutes maybe, instead of making it at once.
	SpreadCheckpoint bool
	// ArchiveTimeout is how long to wait for the next segment of the WAL that
	// the backup needs. 0: DefaultArchiveTimeout.
	ArchiveTimeout time.Duration
	// PackSize is the size in bytes at which a pack is closed. 0:
	// repo.DefaultPackSize.
	PackSize int64
	// ReadLimit is how fast the data directory is read, UploadLimit how fast the data of
	// files is sent, to all repositories together: see Limit. nil: no limit.
	ReadLimit, UploadLimit *rate.Limiter
	// JournalEvery is how often at most it is noted what a later backup can
	// use if this one is killed. 0: repo.JournalEvery.
	JournalEvery time.Duration
	Version      string // of walkeep, kept in the summary

	// resumePatience is how long to wait for the lease of a killed backup on
	// another host: longer than it lasts.
	resumePatience time.Duration

	Progress Progress         // nil: none
	Log      *zap.Logger      // nil: none
	Clock    func() time.Time // nil: time.Now
}

// DefaultWorkers is the number of processors, at most 8.
func DefaultWorkers() int { return min(cores.Count(), mostDefaultWorkers) }

func (o Options) withDefaults() (Options, error) {
	switch {
	case len(o.Repos) == 0:
		return o, errors.New("backup: no repository")
	case o.Source == nil:
		return o, errors.New("backup: no data directory")
	case o.Server == nil:
		return o, errors.New("backup: no server")
	case o.Workers < 0 || o.Workers > MaxWorkers:
		return o, fmt.Errorf("backup: %d workers (expected 1 to %d)", o.Workers, MaxWorkers)
	case o.ArchiveTimeout < 0 || o.PackSize < 0 || o.JournalEvery < 0:
		return o, errors.New("backup: negative limit")
	}
	seen := map[string]bool{}
	for _, r := range o.Repos {
		if seen[r.Name()] {
			return o, fmt.Errorf("backup: repository %s is named twice", r.Name())
		}
		seen[r.Name()] = true
	}
	if o.Type == "" {
		o.Type = repo.Full
	}
	if len(o.Repos) > maxTargets {
		return o, fmt.Errorf("backup: %d repositories (expected up to %d)", len(o.Repos), maxTargets)
	}
	if o.Workers == 0 {
		o.Workers = DefaultWorkers()
	}
	if o.ArchiveTimeout == 0 {
		o.ArchiveTimeout = DefaultArchiveTimeout
	}
	if o.PackSize == 0 {
		o.PackSize = repo.DefaultPackSize
	}
	if o.resumePatience == 0 {
		o.resumePatience = remainsPatience
	}
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o, nil
}

// Result is what became of a backup.
type Result struct {
	// Label is that of the first repository that has the backup, or would have.
	// Where the repositories have different full backups, labels differ.
	Label repo.Label
	Repos []RepoResult // in the order of Options.Repos
}

// RepoResult is what became of a backup in one repository: it is there if Err
// is nil.
type RepoResult struct {
	Name    string
	Summary repo.Summary
	Err     error
	// Notes are for people: why this is a full backup and not what was asked
	// for, or which better parent could not be used.
	Notes []string
}
