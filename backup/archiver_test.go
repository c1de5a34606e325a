package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// archiver moves WAL from a directory, into which archive_command copies it,
// into repositories, and keeps it there for restore_command.
type archiver struct {
	dir  string
	stop context.CancelFunc
	done sync.WaitGroup
	err  error
}

// archiveCommand is the archive_command that fills dir.
func archiveCommand(dir string) string {
	return fmt.Sprintf("test ! -f %[1]s/%%f && cp %%p %[1]s/%%f.tmp && mv %[1]s/%%f.tmp %[1]s/%%f || cmp -s %%p %[1]s/%%f", dir)
}

// startArchiver works until the test ends.
func startArchiver(t testing.TB, dir string, id pg.SystemID, size pg.SegmentSize, repos ...*repo.Repository) *archiver {
	ctx, cancel := context.WithCancel(context.Background())
	a := &archiver{dir: dir, stop: cancel}
	a.done.Go(func() {
		pushed := map[string]bool{}
		for sleep(ctx, 50*time.Millisecond) == nil {
			if err := a.round(ctx, pushed, id, size, repos); err != nil && ctx.Err() == nil {
				a.err = err
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		a.done.Wait()
		if a.err != nil {
			t.Errorf("archiver: %v", a.err)
		}
	})
	return a
}

func (a *archiver) round(ctx context.Context, pushed map[string]bool, id pg.SystemID, size pg.SegmentSize, repos []*repo.Repository) error {
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if pushed[f.Name()] || strings.HasSuffix(f.Name(), ".tmp") || pg.KindOf(f.Name()) != pg.FileSegment {
			continue
		}
		for _, r := range repos {
			if err := put(ctx, filepath.Join(a.dir, f.Name()), id, size, r); err != nil {
				return err
			}
		}
		pushed[f.Name()] = true
	}
	return nil
}

func put(ctx context.Context, path string, id pg.SystemID, size pg.SegmentSize, r *repo.Repository) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	name, err := pg.ParseSegmentName(filepath.Base(path))
	if err != nil {
		return err
	}
	n, err := name.Number(size)
	if err != nil {
		return err
	}
	sum := wal.DigestOf(b)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = r.Epoch(id).PutWAL(ctx, repo.WALHead{
		Kind: repo.WALKind(pg.FileSegment), Name: string(name), SystemID: id, Timeline: name.Timeline(), SegmentSize: size, PGMajor: 15,
		XXH3: sum.String(), Length: int64(len(b)), Start: size.Start(n), ValidTo: size.Start(n + 1), Complete: true,
	}, f)
	if errors.Is(err, repo.ErrExists) {
		return nil
	}
	return err
}
