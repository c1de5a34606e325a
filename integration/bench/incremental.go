package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// scatteredUpdates is how many rows change between two incremental backups.
const scatteredUpdates = 8000

// incrementals measures incremental backups after scattered updates, on each
// rung of change detection that this server has. Full backups are there.
func (b *bench) incrementals(ctx context.Context) error {
	type rung struct{ detect, goal string }
	rungs := []rung{{"changes", "≥ 10"}, {"scan", "≥ 3"}}
	if b.major >= 17 {
		rungs = append(rungs, rung{"summaries", "≥ 10"})
	}
	since, err := b.server.LSN(ctx) // what the next backup's pages changed after
	if err != nil {
		return err
	}
	for _, rung := range rungs {
		r := row{work: "incremental after 8000 updates, by " + rung.detect, goal: rung.goal}
		share := 0.0 // of what is stored in the changed pages compressed
		err = b.alternate(ctx, b.rounds, &r, func() (sample, error) {
			if err := b.updateRows(ctx); err != nil {
				return sample{}, err
			}
			before, err := b.packs()
			if err != nil {
				return sample{}, err
			}
			next, err := b.server.LSN(ctx)
			if err != nil {
				return sample{}, err
			}
			s, err := b.walkeep(ctx, "backup", "--repo", "repo1", "--type", "incremental", "--detect", rung.detect)
			if err != nil {
				return s, err
			}
			after, err := b.packs()
			if err != nil {
				return s, err
			}
			s.stored = after - before
			pages, err := b.changedPages(ctx, since)
			share = max(share, float64(s.stored)/float64(pages))
			since = next
			return s, err
		}, func() (sample, error) {
			before, err := dirSize(filepath.Join(b.theirs, "backup", "bench"))
			if err != nil {
				return sample{}, err
			}
			s, err := b.pgbackrest(ctx, "--type=incr", "backup")
			if err != nil {
				return s, err
			}
			after, err := dirSize(filepath.Join(b.theirs, "backup", "bench"))
			s.stored = after - before
			return s, err
		})
		if err != nil {
			return err
		}
		r.goal += fmt.Sprintf("; stored ≤ 1.3 × the changed pages compressed; it is %.2f ×", share)
		b.add(r)
	}
	return nil
}

// updateRows changes rows all over the largest table, and has the pages written.
func (b *bench) updateRows(ctx context.Context) error {
	if err := b.server.Exec(ctx, `update pgbench_accounts set abalance = abalance + 1
		where aid in (select 1 + (random() * (select max(aid) - 1 from pgbench_accounts))::int from generate_series(1, $1))`, scatteredUpdates); err != nil {
		return err
	}
	return b.server.Exec(ctx, `checkpoint`)
}

// packs is the size of the backups in our repository, without the WAL.
func (b *bench) packs() (total int64, err error) {
	dirs, err := filepath.Glob(filepath.Join(b.ours, "*", "*", "backup"))
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		n, err := dirSize(dir)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
