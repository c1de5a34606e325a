// Package source has the places that missing WAL can be had from over a
// server's own protocol, as [archive.Source]. It is apart from package archive
// so that walkeep-wal, which needs that one, carries no PostgreSQL client.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/stream"
	"github.com/walkeep/walkeep/repo"
)

// Stream is a server that sends what it still has in pg_wal by physical
// streaming replication: segments of its own timeline and of those that it came
// from, and history files. The role of conninfo needs REPLICATION. node is for
// people; log may be nil.
//
// A server sends no segment in which a timeline ended under that timeline's
// name, only the same WAL under the name of the timeline that follows.
func Stream(node, conninfo string, log *zap.Logger) archive.Source {
	return streamSource{node, conninfo, log}
}

type streamSource struct {
	node, conninfo string
	log            *zap.Logger
}

func (s streamSource) Name() string { return "replication from " + s.node }

func (s streamSource) Fetch(ctx context.Context, name repo.WALName, w io.Writer) error {
	c, err := stream.Connect(ctx, s.conninfo, stream.Options{Log: s.log})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is written to it
	switch name.Kind {
	case pg.FileSegment:
		err = c.Segment(ctx, pg.SegmentName(name.Name), w)
	case pg.FileHistory:
		var b []byte
		if b, err = c.History(ctx, name.Timeline()); err == nil {
			_, err = w.Write(b)
		}
	default:
		return fmt.Errorf("fetch %s: servers stream segments and history files only", name)
	}
	for _, lacks := range []error{stream.ErrRemoved, stream.ErrNotOnPath, stream.ErrEndsEarly, stream.ErrNoHistory} {
		if errors.Is(err, lacks) {
			return fmt.Errorf("%w: %w", archive.ErrSourceLacks, err)
		}
	}
	return err
}
