package agent

import (
	"context"
	"fmt"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/repo"
)

// refill copies a file that pg_wal has no more from another repository.
func (q *queue) refill(ctx context.Context, e *entry) (archive.Outcome, error) {
	name, err := repo.ParseWALName(e.name)
	if err != nil {
		// How far a partial segment goes is in no file name; it was worth
		// trying while it was here.
		return archive.Failed, fmt.Errorf("%w: %w", archive.ErrLost, err)
	}
	a := q.agent
	a.mu.Lock()
	cluster := a.cluster
	a.mu.Unlock()
	return a.archive.Refill(ctx, q.index, cluster, name)
}
