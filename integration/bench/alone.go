package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	library "github.com/walkeep/walkeep/repo/codec"
)

// libzstd measures what compression alone needs: the files of the data directory
// that a full backup has, without those of no use to it, through libzstd at level
// 3 on two cores, in pieces of 1 MiB, and then away.
func (b *bench) libzstd(ctx context.Context) (s sample, err error) {
	s.took, err = timeOf(func() error {
		_, err := compressAll(ctx, b.server.DataDir, func(piece []byte) []byte { return piece })
		return err
	})
	return s, err
}

// changedPages is what the pages take that changed since an LSN, compressed with
// zstd 3, in pieces of 1 MiB.
func (b *bench) changedPages(ctx context.Context, since pg.LSN) (int64, error) {
	return compressAll(ctx, filepath.Join(b.server.DataDir, "base"), func(piece []byte) []byte {
		changed := piece[:0]
		for len(piece) >= pageSize {
			page := piece[:pageSize]
			piece = piece[pageSize:]
			// PageXLogRecPtr (storage/bufpage.h): the high half first.
			lsn := pg.LSN(uint64(binary.LittleEndian.Uint32(page))<<32 | uint64(binary.LittleEndian.Uint32(page[4:])))
			if lsn >= since {
				changed = append(changed, page...) // never ahead of what is read
			}
		}
		return changed
	})
}

// compressAll sends what choose leaves of each file below dir through libzstd, on
// two cores. Files that come and go meanwhile are left out.
func compressAll(ctx context.Context, dir string, choose func(piece []byte) []byte) (int64, error) {
	const pieceSize = 1 << 20
	type piece struct {
		path string
		at   int64
	}
	pieces := make(chan piece)
	var total atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "pg_wal" || d.Name() == "pgsql_tmp"):
				return fs.SkipDir
			case !d.Type().IsRegular():
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return nil //nolint:nilerr // gone
			}
			for at := int64(0); at < info.Size(); at += pieceSize {
				select {
				case pieces <- piece{path, at}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range 2 {
		g.Go(func() error {
			enc, err := library.NewEncoder(library.Codec{Name: library.Zstd, Level: 3})
			if err != nil {
				return err
			}
			plain, stored := make([]byte, pieceSize), make([]byte, 0, library.Bound(pieceSize))
			var kept []byte // from small pieces, until there is enough
			flush := func(from int) error {
				if len(kept) < from || len(kept) == 0 {
					return nil
				}
				out, err := enc.Append(stored, kept)
				total.Add(int64(len(out)))
				kept = kept[:0]
				return err
			}
			for p := range pieces {
				n, err := readAt(p.path, plain, p.at)
				if err != nil {
					return err
				}
				kept = append(kept, choose(plain[:n])...)
				if err := flush(pieceSize / 2); err != nil {
					return err
				}
			}
			return flush(0)
		})
	}
	err := g.Wait()
	return total.Load(), err
}

// readAt reads a piece of a file; nothing of one that is gone.
func readAt(path string, into []byte, at int64) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(into, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// chains measures the restore of an incremental backup beside that of the full
// one that it stands on. The full backup is the oldest in the repository.
func (b *bench) chains(ctx context.Context) error {
	if err := b.setCodec(ctx, codec{name: "zstd", back: "zst", level: 3}); err != nil {
		return err
	}
	for _, kind := range []string{"full", "incremental"} {
		if _, err := b.walkeep(ctx, "backup", "--repo", "repo1", "--type", kind); err != nil {
			return err
		}
		if err := b.updateRows(ctx); err != nil {
			return err
		}
	}
	labels, err := filepath.Glob(filepath.Join(b.ours, "*", "*", "backup", "*F"))
	if err != nil {
		return err
	}
	if len(labels) != 1 {
		return fmt.Errorf("expected one full backup in the repository: %v", labels)
	}
	restore := func(args ...string) func() (sample, error) {
		return func() (sample, error) {
			dir, err := b.env.Mkdir("restore")
			if err != nil {
				return sample{}, err
			}
			defer os.RemoveAll(dir)
			return b.walkeep(ctx, append([]string{"restore", "--repo", "repo1", "--pgdata", dir}, args...)...)
		}
	}
	r := row{work: "restore of an incremental, beside one of its full (right)", goal: "≥ 1.0"}
	if err := takeTurns(ctx, b.rounds, &r, restore(), restore("--backup", filepath.Base(labels[0]))); err != nil {
		return err
	}
	b.add(r)
	return nil
}
