package prefetch

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
)

// FromSpool is the origin of a file that Get took from the spool.
const FromSpool = "spool"

// Getter gets files for recovery, from the spool or from the repositories.
type Getter struct {
	// Archive is where files come from that are not in the spool, and is asked
	// for only then.
	Archive func(context.Context) (*archive.Archive, error)
	// Start starts a prefetcher for the recovery, in this process or another,
	// and does not wait for it. nil: none is started.
	Start   func(*Recovery) error
	Options Options
}

// Get brings the file of that name to dest, and says where it came from: the
// name of a repository, or FromSpool. Its errors are archive.Get's; nothing
// that is wrong with the spool is an error.
func (g *Getter) Get(ctx context.Context, name, dest string) (string, error) {
	o := g.Options.withDefaults()
	segment, err := pg.ParseSegmentName(name)
	if o.Off || err != nil {
		return g.plain(ctx, name, dest, o)
	}
	r, err := Locate(filepath.Dir(dest), o)
	if err != nil {
		return g.plain(ctx, name, dest, o)
	}
	s, err := openSpool(r, false)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			o.Log.Warn("the spool cannot be used", zap.Error(err))
		}
		s = nil
	}
	from := FromSpool
	if !take(s, segment, dest, o) {
		if from, err = g.plain(ctx, name, dest, o); err != nil {
			return "", err
		}
	}
	g.keepFilling(r, s, segment, o)
	return from, nil
}

func (g *Getter) plain(ctx context.Context, name, dest string, o Options) (string, error) {
	a, err := g.Archive(ctx)
	if err != nil {
		return "", err
	}
	// As Locate finds it. Whoever asks from elsewhere has nothing to remember.
	if abs, err := filepath.Abs(filepath.Dir(dest)); err == nil && !o.Off {
		if pgdata, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil && inRecovery(pgdata) {
			a = a.Remembering(o.base(pgdata), o.Origin)
		}
	}
	return a.Get(ctx, name, dest)
}

func take(s *spool, segment pg.SegmentName, dest string, o Options) bool {
	if s == nil {
		return false
	}
	ok, err := s.take(segment, dest, o.Patience)
	if err != nil {
		o.Log.Warn("not taken from the spool", zap.String("segment", string(segment)), zap.Error(err))
	}
	return ok
}

// keepFilling tells the prefetcher how far recovery is, and starts one if none
// runs. A segment has been found just now, so more are likely. A get that found
// none says nothing: a standby that waits for the next segment would keep the
// prefetcher alive for ever.
func (g *Getter) keepFilling(r *Recovery, s *spool, segment pg.SegmentName, o Options) {
	if g.Start == nil {
		return
	}
	var err error
	if s == nil {
		if s, err = openSpool(r, true); err != nil {
			o.Log.Debug("no spool", zap.Error(err))
			return
		}
	}
	if err = s.ask(segment); err != nil {
		o.Log.Debug("no spool", zap.Error(err))
		return
	}
	if s.running() {
		return
	}
	if err := g.Start(r); err != nil {
		o.Log.Debug("no prefetcher", zap.Error(err))
	}
}
