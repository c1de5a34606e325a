package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/walkeep/walkeep/integration/postgres"
)

// deltas measures restores in place, over what a restore has made: with nothing
// changed since, and with pages changed at random places. Both tools read all
// that is there and fetch what differs. It lies in the page cache for both: only
// pgBackRest's restore leaves it there, ours writes past it. Full backups are there.
func (b *bench) deltas(ctx context.Context) error {
	ours, err := b.env.Mkdir("delta-walkeep")
	if err != nil {
		return err
	}
	defer os.RemoveAll(ours)
	theirs, err := b.env.Mkdir("delta-pgbackrest")
	if err != nil {
		return err
	}
	defer os.RemoveAll(theirs)
	if _, err := b.walkeep(ctx, "restore", "--repo", "repo1", "--pgdata", ours); err != nil {
		return err
	}
	if !b.alone {
		if _, err := b.pgbackrest(ctx, "--pg1-path="+theirs, "restore"); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		what string
		part float64
	}{{"nothing changed", 0}, {"1 % of the pages changed", 0.01}} {
		seed := uint64(0)
		r := row{work: "restore in place, " + c.what, goal: "≥ 2.0"}
		err := b.alternate(ctx, b.rounds, &r, func() (sample, error) {
			seed++ // the same pages in both
			if err := changePages(ours, c.part, seed); err != nil {
				return sample{}, err
			}
			if err := readAll(ours); err != nil {
				return sample{}, err
			}
			return b.walkeep(ctx, "restore", "--repo", "repo1", "--pgdata", ours, "--delta")
		}, func() (sample, error) {
			if err := changePages(theirs, c.part, seed); err != nil {
				return sample{}, err
			}
			if err := readAll(theirs); err != nil {
				return sample{}, err
			}
			return b.pgbackrest(ctx, "--pg1-path="+theirs, "--delta", "restore")
		})
		if err != nil {
			return err
		}
		b.add(r)
	}
	return nil
}

const pageSize = 8192

// changePages changes a part of the pages of the relations in a data directory.
func changePages(dir string, part float64, seed uint64) error {
	if part == 0 {
		return nil
	}
	return filepath.WalkDir(filepath.Join(dir, "base"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rng := rand.New(rand.NewPCG(seed, uint64(info.Size())))
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for page := range info.Size() / pageSize {
			if rng.Float64() < part {
				if _, err := f.WriteAt([]byte("changed"), page*pageSize+1000); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// opens measures the time from the command that restores until the server is
// open for writing, with WAL to replay that was written after the backup.
func (b *bench) opens(ctx context.Context) error {
	if b.segmentsToOpen == 0 {
		return nil
	}
	if err := b.setCodec(ctx, codec{name: "zstd", back: "zst", level: 3}); err != nil {
		return err
	}
	if err := b.archiveTo(ctx, ""); err != nil {
		return err
	}
	if _, err := b.walkeep(ctx, "backup", "--repo", "repo1", "--type", "full"); err != nil {
		return err
	}
	if _, err := b.pgbackrest(ctx, "--type=full", "backup"); err != nil {
		return err
	}
	if err := b.writeWAL(ctx, b.segmentsToOpen); err != nil {
		return err
	}
	get, err := b.asyncGet()
	if err != nil {
		return err
	}
	r := row{work: fmt.Sprintf("from the command to open for writing, %d segments", b.segmentsToOpen), goal: "> 1.0"}
	err = b.alternate(ctx, b.rounds, &r, func() (sample, error) {
		return b.open(ctx, func(dir string) (sample, error) {
			return b.walkeep(ctx, "restore", "--repo", "repo1", "--pgdata", dir)
		})
	}, func() (sample, error) {
		return b.open(ctx, func(dir string) (sample, error) {
			return b.pgbackrest(ctx, "--pg1-path="+dir, "--recovery-option=restore_command="+get, "restore")
		})
	})
	b.add(r)
	return err
}

// open restores, starts the server, and waits until it is open for writing.
func (b *bench) open(ctx context.Context, restore func(dir string) (sample, error)) (sample, error) {
	parent, err := b.env.Mkdir("open")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(parent)
	dir := filepath.Join(parent, "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return sample{}, err
	}
	if err := b.env.Own(dir); err != nil {
		return sample{}, err
	}
	s, err := restore(dir)
	if err != nil {
		return s, err
	}
	clone, err := b.env.Open(dir, map[string]string{"fsync": "on", "archive_mode": "off"})
	if err != nil {
		return s, err
	}
	defer func() { _ = clone.Stop(ctx, postgres.Immediate) }()
	took, err := timeOf(func() error {
		if err := clone.Start(ctx); err != nil {
			return err
		}
		var err error
		for range 15 { // WaitFor waits for a minute
			if err = clone.WaitFor(ctx, "select not pg_is_in_recovery()"); err == nil {
				break
			}
		}
		return err
	})
	s.took += took
	return s, err
}

// readAll brings the files below dir into the page cache.
func readAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}
