package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fulls measures full backups, codec by codec; zstd 3 last, so that its backups
// are there for the restores.
func (b *bench) fulls(ctx context.Context) error {
	for _, c := range []codec{
		{name: "lz4", back: "lz4", level: 1, goal: "1.8"},
		{name: "zstd", back: "zst", level: 1, goal: "1.8"},
		{name: "zstd", back: "zst", level: 3, goal: "1.4"},
	} {
		if err := b.setCodec(ctx, c); err != nil {
			return err
		}
		r := row{work: "full backup, " + c.String(), goal: "≥ " + c.goal}
		alone := row{work: r.work + ", beside libzstd alone (right)", goal: "≥ 0.87"}
		err := b.alternate(ctx, b.rounds, &r, func() (sample, error) {
			before, err := dirSize(b.ours)
			if err != nil {
				return sample{}, err
			}
			s, err := b.walkeep(ctx, "backup", "--repo", "repo1", "--type", "full")
			if err != nil {
				return s, err
			}
			after, err := dirSize(b.ours)
			if err != nil {
				return s, err
			}
			s.stored = after - before
			if c.level == 3 {
				only, err := b.libzstd(ctx)
				alone.ours, alone.theirs = append(alone.ours, s), append(alone.theirs, only)
				return s, err
			}
			return s, nil
		}, func() (sample, error) {
			s, err := b.pgbackrest(ctx, "--type=full", "backup")
			if err != nil {
				return s, err
			}
			// Retention keeps one, so this is one backup.
			s.stored, err = dirSize(filepath.Join(b.theirs, "backup", "bench"))
			return s, err
		})
		if err != nil {
			return err
		}
		b.add(r)
		if len(alone.ours) > 0 {
			b.add(alone)
		}
	}
	return nil
}

// restores measures a full restore into an empty directory, without a start.
func (b *bench) restores(ctx context.Context) error {
	r := row{work: "restore, zstd 3", goal: "≥ 2.0"}
	into := func(f func(dir string) (sample, error)) func() (sample, error) {
		return func() (sample, error) {
			dir, err := b.env.Mkdir("restore")
			if err != nil {
				return sample{}, err
			}
			defer os.RemoveAll(dir)
			return f(dir)
		}
	}
	err := b.alternate(ctx, b.rounds, &r, into(func(dir string) (sample, error) {
		return b.walkeep(ctx, "restore", "--repo", "repo1", "--pgdata", dir)
	}), into(func(dir string) (sample, error) {
		return b.pgbackrest(ctx, "--pg1-path="+dir, "restore")
	}))
	if err == nil {
		b.add(r)
	}
	return err
}

// pushes measures archive_command without an agent: one call a segment.
func (b *bench) pushes(ctx context.Context) error {
	if err := b.server.Configure(map[string]string{"archive_command": "false"}); err != nil {
		return err
	}
	if err := b.server.Reload(ctx); err != nil {
		return err
	}
	segments, err := b.makeSegments(ctx, b.segments)
	if err != nil {
		return err
	}
	for _, c := range []codec{{name: "lz4", back: "lz4", level: 1}, {name: "zstd", back: "zst", level: 3}} {
		if err := b.setCodec(ctx, c); err != nil {
			return err
		}
		// setCodec turned archiving on: off again, we push by hand.
		if err := b.server.Configure(map[string]string{"archive_command": "false"}); err != nil {
			return err
		}
		if err := b.server.Reload(ctx); err != nil {
			return err
		}
		r := row{work: "push of one segment, " + c.String(), goal: "≥ 1.0", perRun: len(segments)}
		err := b.alternate(ctx, b.rounds, &r, func() (sample, error) {
			return b.pushAll(segments, b.ours, func(path string) (sample, error) {
				return timed(b.env.Command(ctx, b.site.Programs.WAL(), "--config", b.site.Config, "push", path))
			})
		}, func() (sample, error) {
			return b.pushAll(segments, filepath.Join(b.theirs, "archive", "bench"), func(path string) (sample, error) {
				return b.pgbackrest(ctx, "archive-push", path)
			})
		})
		if err != nil {
			return err
		}
		b.add(r)
		again := row{work: "push of an archived segment, " + c.String(), perRun: len(segments)}
		if err := b.alternate(ctx, 1, &again, func() (sample, error) {
			return b.pushAll(segments, "", func(path string) (sample, error) {
				return timed(b.env.Command(ctx, b.site.Programs.WAL(), "--config", b.site.Config, "push", path))
			})
		}, func() (sample, error) {
			return b.pushAll(segments, "", func(path string) (sample, error) { return b.pgbackrest(ctx, "archive-push", path) })
		}); err != nil {
			return err
		}
		b.add(again)
	}
	return nil
}

// pushAll archives all segments one by one, after removing segments below
// archive from an earlier round.
func (b *bench) pushAll(segments []string, archive string, push func(string) (sample, error)) (total sample, err error) {
	if archive != "" {
		if err := removeSegments(archive); err != nil {
			return total, err
		}
	}
	for _, path := range segments {
		s, err := push(path)
		if err != nil {
			return total, err
		}
		total.took += s.took
		total.rss = max(total.rss, s.rss)
	}
	return total, nil
}

// removeSegments deletes archived segments, of either tool, by their names.
func removeSegments(dir string) error {
	return filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if isSegment(path) {
			return os.Remove(path)
		}
		return nil
	})
}

// makeSegments writes WAL until there are enough complete segments.
func (b *bench) makeSegments(ctx context.Context, n int) ([]string, error) {
	for range 50 * n {
		if err := b.server.Exec(ctx, `update pgbench_accounts set abalance = abalance + 1 where aid % 97 = 0 and aid < 3000000`); err != nil {
			return nil, err
		}
		ready, err := filepath.Glob(filepath.Join(b.server.DataDir, "pg_wal", "archive_status", "*.ready"))
		if err != nil {
			return nil, err
		}
		if len(ready) < n {
			continue
		}
		var segments []string
		for _, r := range ready {
			if name := strings.TrimSuffix(filepath.Base(r), ".ready"); len(name) == 24 && len(segments) < n {
				segments = append(segments, filepath.Join(b.server.DataDir, "pg_wal", name))
			}
		}
		return segments, nil
	}
	return nil, fmt.Errorf("fewer than %d segments waiting to be archived", n)
}

// start measures a helper that has nothing to do.
func (b *bench) start(ctx context.Context) error {
	const runs = 50
	r := row{work: "walkeep-wal, nothing to do", goal: "< 15 ms", onlyOurs: true, perRun: runs}
	err := b.alternate(ctx, b.rounds, &r, func() (total sample, err error) {
		for range runs {
			s, err := timed(b.env.Command(ctx, b.site.Programs.WAL(), "--version"))
			if err != nil {
				return total, err
			}
			total.took += s.took
			total.rss = max(total.rss, s.rss)
		}
		return total, nil
	}, nil)
	b.add(r)
	return err
}

// manyFiles measures the memory of a backup of very many small files.
func (b *bench) manyFiles(ctx context.Context) error {
	if b.files == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "making %d small files…\n", b.files)
	dir := filepath.Join(b.server.DataDir, "base", "5")
	for i := range b.files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(900_000_000+i)), []byte(fmt.Sprint(i)), 0o600); err != nil {
			return err
		}
	}
	if err := b.env.Own(dir); err != nil {
		return err
	}
	if err := b.setCodec(ctx, codec{name: "zstd", back: "zst", level: 3}); err != nil {
		return err
	}
	r := row{work: fmt.Sprintf("full backup with %d small files more", b.files), goal: "RSS < 256 MiB"}
	err := b.alternate(ctx, 1, &r, func() (sample, error) {
		return b.walkeep(ctx, "backup", "--repo", "repo1", "--type", "full")
	}, func() (sample, error) {
		return b.pgbackrest(ctx, "--type=full", "backup")
	})
	b.add(r)
	return err
}

func (b *bench) add(r row) {
	b.rows = append(b.rows, r)
	fmt.Fprintln(os.Stderr, strings.ReplaceAll(r.String(), "\t", " | "))
}
