package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
)

// errLeftover: the file is none that the timeline in its name ever wrote, and the
// server has left that timeline before it came to write it.
var errLeftover = errors.New("nothing of its timeline is in it")

// leftover tells whether a segment that is not what its name says is a leftover.
//
// A server makes segments before it needs them, out of old ones or of zeroes, and
// names them after the timeline that it writes. When a new timeline begins, such
// files of the old one can stay: where pg_rewind or a base backup brought them along,
// on a standby. Once the server is past their position, it finds that they were
// never archived, and hands them to archive_command (xlog.c, RemoveOldXlogFiles;
// xlogarchive.c, XLogArchiveCheckDone), on every node that has a copy. An error
// would be given for ever, and end all archiving there.
//
// There is nothing to archive in them, and nothing is missed: by the server's own
// history, recovery reads that segment on another timeline. That is so, too, where
// the timeline was left in the segment: the next one's file begins with what the
// old one had of it. If recovery reads it on this timeline, or the history cannot
// be read, the file should have been written, and is refused.
func (l *local) leftover(name pg.SegmentName, why error) bool {
	if !errors.Is(why, wal.ErrWrongPage) && !errors.Is(why, wal.ErrNotWAL) || l.control == nil {
		return false
	}
	now := max(l.control.Timeline, l.control.MinRecoveryTimeline)
	n, err := name.Number(l.control.SegmentSize)
	if err != nil || now <= name.Timeline() {
		return false
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(l.path), pg.HistoryName(now)))
	if err != nil {
		return false
	}
	h, err := pg.ParseHistory(now, b)
	if err != nil {
		return false
	}
	end := l.control.SegmentSize.Start(n) + pg.LSN(l.control.SegmentSize)
	for _, span := range h.Path() { // the one that the segment's last byte lies on
		if span.Timeline == name.Timeline() && span.From < end && end <= span.To {
			return false
		}
	}
	return true
}

func leftoverError(name pg.SegmentName, why error) error {
	return fmt.Errorf("%s: %w: %w", name, errLeftover, why)
}
