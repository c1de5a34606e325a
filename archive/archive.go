package archive

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Options of New. Repos is required.
type Options struct {
	// Repos in order of preference for Get.
	Repos []*repo.Repository
	// Require is the number of repositories that must have a file before Push
	// succeeds; 0 = all.
	Require int
	// SystemID of the cluster. 0: as pg_control says, which is looked for
	// beside pg_wal and in the working directory; else as the repositories say.
	SystemID pg.SystemID
	// Unfinished accepts the segment that the server was writing when it
	// crashed, as a partial one. Else it is refused for as long as pg_control says
	// that the server runs: a server hands over finished segments only.
	Unfinished bool
	// Grace is how long Push waits for the other repositories after Require of
	// them have the file, on top of twice the time it took till then. 0 = 5 s.
	Grace time.Duration
	// Hedge is how long Get waits for a repository before it asks the next one
	// too. 0 = 5 s.
	Hedge time.Duration
	// StandbyPatience is how long a Get for a standby waits for the first or the
	// next bytes; see Archive.Get. 0 = 3 s: a promotion waits for about ten of them.
	StandbyPatience time.Duration
	Log             *zap.Logger // nil: none
}

// Archive pushes and gets files. It remembers which repositories were found fit
// to push to. Its methods may be called from many goroutines.
type Archive struct {
	opts   Options
	memory memory
	pieces *pieces

	mu    sync.Mutex // guards what follows
	ready map[readyKey]*repo.Epoch
	// timelines are the history files that were held against a repository's:
	// nil if they agree. History files do not change, so this stays right.
	timelines map[timelineKey]*ConflictError
	// noTimeline was in no repository at noTimelineAt: see fork.
	noTimeline   pg.Timeline
	noTimelineAt time.Time
}

type readyKey struct {
	repo int
	id   pg.SystemID
}

// New checks the options; nothing is asked of the repositories yet.
func New(o Options) (*Archive, error) {
	switch {
	case len(o.Repos) == 0:
		return nil, errors.New("archive: no repositories")
	case o.Require < 0 || o.Require > len(o.Repos):
		return nil, fmt.Errorf("archive: %d of %d repositories are required", o.Require, len(o.Repos))
	}
	if o.Require == 0 {
		o.Require = len(o.Repos)
	}
	if o.Grace == 0 {
		o.Grace = 5 * time.Second
	}
	if o.Hedge == 0 {
		o.Hedge = 5 * time.Second
	}
	if o.StandbyPatience == 0 {
		o.StandbyPatience = 3 * time.Second
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Archive{opts: o, pieces: newPieces(), ready: map[readyKey]*repo.Epoch{}, timelines: map[timelineKey]*ConflictError{}}, nil
}

// Of is the archive for files of the cluster with this system identifier,
// wherever they lie.
func (a *Archive) Of(id pg.SystemID) *Archive {
	o := a.opts
	o.SystemID = id
	return &Archive{opts: o, pieces: a.pieces, ready: map[readyKey]*repo.Epoch{}, timelines: map[timelineKey]*ConflictError{}}
}
