package agent

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
)

// limitQueues sees to it that no more WAL waits for a repository than the queue
// limit allows: the oldest segments are dropped, that is, the server is no
// longer kept from removing them on account of this repository. They stay in the
// table and are pushed when the repository is back, from pg_wal or from another
// repository; until then they are a gap. mu is held.
func (a *Agent) limitQueues() {
	if a.opts.QueueLimit == 0 {
		return
	}
	now := a.opts.Clock()
	for _, q := range a.queues {
		q.limit(a.opts.QueueLimit, now)
	}
}

// limit does so for one repository. One that works is waited for, however long
// its queue is: it gets shorter. mu is held.
func (q *queue) limit(limit int64, now time.Time) {
	waits, size := q.waits()
	if len(waits) == 0 {
		q.moved = now
	}
	works := q.failures == 0 && now.Sub(q.moved) < patience
	if size <= limit || works {
		return
	}
	slices.SortFunc(waits, func(e, o *entry) int {
		if e.before(o) {
			return -1
		}
		return 1
	})
	var dropped []*entry
	for _, e := range waits {
		if size <= limit {
			break
		}
		if e.kind != pg.FileSegment { // the others are small, and needed the more
			continue
		}
		e.places[q.index].dropped = true
		size -= e.id.size
		dropped = append(dropped, e)
	}
	if len(dropped) == 0 {
		return
	}
	q.counters.Dropped += int64(len(dropped))
	q.log.Error("more WAL waits for this repository than archive.queue-limit allows: the oldest is no longer waited for, and is a gap until the repository has it",
		zap.Int("segments", len(dropped)), zap.Int64("limit", limit),
		zap.String("first", dropped[0].name), zap.String("last", dropped[len(dropped)-1].name))
}

// waits are the files that wait for the repository and keep the server
// waiting, and their size in bytes. mu is held.
func (q *queue) waits() (all []*entry, size int64) {
	for _, e := range q.agent.files {
		if p := e.places[q.index]; e.refused == nil && p.state == waiting && !p.dropped {
			all = append(all, e)
			size += e.id.size
		}
	}
	return all, size
}
