package streaming

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Options of New. Servers, Repos and Spool are required.
type Options struct {
	// Servers are where to stream from. Of those that answer, the one with the
	// highest timeline is taken, then the one that is furthest.
	Servers []Server
	Repos   []*repo.Repository
	// Require is the number of repositories that must have WAL before the slot
	// moves and before a file may be given up for the others; 0 = all.
	Require int
	// Spool is a directory of our own: what is in it is deleted at start.
	Spool string
	// SpoolBytes is how much finished WAL may wait in it; two segments always
	// may. 0 = 1 GiB.
	SpoolBytes int64
	// Slot is a physical replication slot; "" = none. A slot that is missing
	// or in use is complained of, and done without.
	Slot string
	// Interval is how often the growing segment is stored, if it grew. Storing
	// never takes more than half of the time, so it can be longer. 0 = 5 s.
	Interval time.Duration
	// SystemID is the cluster that the servers must be of; 0: that of the
	// first one that answers.
	SystemID pg.SystemID
	// Retry is the longest pause between attempts to connect, or to store. 0 = 10 s.
	Retry time.Duration
	// Recheck is how often all servers are asked whether one is ahead of ours. A
	// standby that gets no more WAL is left after two of them. 0 = 15 s.
	Recheck time.Duration
	Log     *zap.Logger // nil: none
}

// Server is one that can be streamed from.
type Server struct {
	Name     string // of the node, for people
	ConnInfo string // its role needs REPLICATION
}

func (o *Options) complete() error {
	switch {
	case len(o.Servers) == 0:
		return errors.New("streaming: no server to stream from")
	case len(o.Repos) == 0:
		return errors.New("streaming: no repositories")
	case o.Require < 0 || o.Require > len(o.Repos):
		return errors.New("streaming: more repositories are required than there are")
	case o.Spool == "":
		return errors.New("streaming: no directory for the spool")
	}
	if o.Require == 0 {
		o.Require = len(o.Repos)
	}
	if o.SpoolBytes <= 0 {
		o.SpoolBytes = 1 << 30
	}
	if o.Interval <= 0 {
		o.Interval = 5 * time.Second
	}
	if o.Retry <= 0 {
		o.Retry = 10 * time.Second
	}
	if o.Recheck <= 0 {
		o.Recheck = 15 * time.Second
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return nil
}

// archive makes the one that pushes.
func (o *Options) archive(id pg.SystemID) (*archive.Archive, error) {
	return archive.New(archive.Options{Repos: o.Repos, Require: o.Require, SystemID: id, Log: o.Log})
}
