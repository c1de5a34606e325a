package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Getter brings archived files back, for restore_command. archive.ErrNotArchived
// means that the file is certainly in no repository.
type Getter interface {
	Get(ctx context.Context, name, dest string) error
}

// Options of New. PGData and Repos are required.
type Options struct {
	PGData string // data directory of the server; absolute. It may not be there yet
	Node   string // name of the node, for Status
	// Repos are the repositories to archive to.
	Repos []*repo.Repository
	// Require is the number of repositories that must have a file before
	// PostgreSQL is told that it is archived; 0 = all.
	Require int
	// Workers is how many files are in transfer at a time, in all repositories
	// together; each has one at least. 0 = 4.
	Workers int
	// Socket is the path of the unix socket for walkeep-wal; "" = none.
	Socket string
	// StandbyDelay is how long a standby lets a new file lie before it pushes
	// it, for the primary is about to. 0 = 2 s; negative = none.
	StandbyDelay time.Duration
	// Rescan is how often pg_wal is looked through without an occasion. 0 = 10 s.
	Rescan time.Duration
	// QueueLimit is how many bytes of WAL may wait for one repository before it
	// is no longer waited for; 0 = no limit.
	QueueLimit int64
	// SystemID is the cluster that PGData must be of; 0 = any.
	SystemID pg.SystemID
	// Getter answers "get"; nil: walkeep-wal does that itself.
	Getter Getter
	Clock  func() time.Time // nil: time.Now. Only differences count, so clock jumps do not
	Log    *zap.Logger      // nil: none
}

func (o *Options) complete() error {
	switch {
	case !filepath.IsAbs(o.PGData):
		return fmt.Errorf("agent: the data directory %q is not an absolute path", o.PGData)
	case len(o.Repos) == 0:
		return errors.New("agent: no repositories")
	case o.Require < 0 || o.Require > len(o.Repos):
		return fmt.Errorf("agent: %d of %d repositories are required", o.Require, len(o.Repos))
	case o.Workers < 0 || o.QueueLimit < 0 || o.Rescan < 0:
		return errors.New("agent: a negative number in the options")
	}
	if o.Require == 0 {
		o.Require = len(o.Repos)
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.StandbyDelay == 0 {
		o.StandbyDelay = 2 * time.Second
	}
	o.StandbyDelay = max(o.StandbyDelay, 0)
	if o.Rescan == 0 {
		o.Rescan = 10 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return nil
}

// share is how many workers each repository gets, so that one that hangs holds
// none of the others'.
func (o *Options) share() int { return max(1, o.Workers/len(o.Repos)) }
