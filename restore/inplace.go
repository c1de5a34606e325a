package restore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
)

// checkOld looks at the directory that is restored over, before anything in it
// is touched: is it a data directory of this cluster, and do its links lead
// where they are expected?
func (r *run) checkOld() error {
	dir := r.opts.PGData
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, marked := os.Lstat(filepath.Join(dir, markerFile))
	switch c, err := pg.ReadControl(dir); {
	case err == nil && c.SystemID != r.plan.SystemID && marked != nil:
		return fmt.Errorf("%w: %s is the data directory of another cluster, system identifier %s; the backup is of %s. "+
			"Restore into an empty directory instead", ErrBadRequest, dir, c.SystemID, r.plan.SystemID)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		r.opts.Log.Warn("cannot tell which cluster was in the data directory", zap.Error(err))
	}
	for name, mapped := range r.survey.top {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || mapped || st.Mode()&fs.ModeSymlink == 0 || slices.Contains(r.opts.Keep, name) {
			continue
		}
		to, _ := os.Readlink(filepath.Join(dir, name))
		return fmt.Errorf("%w: %s is a link to %s. To restore its contents there, add --link-map %s=%s; for a plain directory, remove the link",
			ErrBadRequest, filepath.Join(dir, name), to, name, to)
	}
	return nil
}

// checkOld refuses to restore in place over what is not a data directory, or
// not this one's tablespace.
func (p *place) checkOld(names []string, link string, main *place) error {
	b, err := p.root.ReadFile(markerFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", filepath.Join(p.path, markerFile), err)
	}
	p.marked = err == nil
	if p.marked {
		pgdata := p.path
		if main != nil {
			pgdata = main.path
		}
		lines := strings.Split(string(b), "\n")
		if len(names) == 1 || len(lines) >= 3 && lines[1] == pgdata {
			return nil
		}
		// A marker that was cut off by a crash: judge by what else is there.
	}
	if main == nil {
		for _, name := range []string{"PG_VERSION", "base", "global"} {
			if _, err := p.root.Lstat(name); err != nil {
				return fmt.Errorf("%w: %s holds %s, and is no data directory: there is no %s", ErrNotEmpty, p.path, listSome(names), name)
			}
		}
		return nil
	}
	old, err1 := os.Stat(filepath.Join(main.path, link)) // where the link leads
	here, err2 := p.root.Stat(".")
	if err1 != nil || err2 != nil || !os.SameFile(old, here) {
		return fmt.Errorf("%w: %s holds %s, and %s does not lead there: it may be another server's. Map it elsewhere",
			ErrNotEmpty, p.path, listSome(names), filepath.Join(main.path, link))
	}
	return nil
}

// clearOld makes the old directory one that no server starts in, and then one
// to restore into. In this order, so that a crash anywhere leaves the old
// directory as it was, or one without pg_control:
//
//  1. global/pg_control goes, durably. Without it no server starts.
//  2. What does not belong goes. From here on the next run, too, finds the
//     marker, and goes on with whatever is there.
func (r *run) clearOld() error {
	main := r.places[""]
	r.opts.Progress.Stage("look at what is there")
	if err := r.lookAtLinks(); err != nil {
		return err
	}
	if err := main.root.RemoveAll(controlFile); err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("remove %s: %w", controlFile, err)
	}
	if d, err := main.root.Open("global"); err == nil {
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("sync global: %w", err)
		}
	}
	if err := r.step("invalidated"); err != nil {
		return err
	}
	r.kept = map[string]bool{}
	for _, name := range r.opts.Keep {
		if _, err := main.root.Lstat(name); err == nil {
			r.kept[name] = true
		}
	}
	if err := r.sweep(); err != nil {
		return err
	}
	return r.step("swept")
}

// lookAtLinks tells of tablespaces that the backup does not have or that go
// elsewhere now: what is in their directories stays.
func (r *run) lookAtLinks() error {
	main := r.places[""]
	names, err := filepath.Glob(filepath.Join(main.path, "pg_tblspc", "*"))
	if err != nil {
		return err
	}
	for _, path := range names {
		to, err := os.Readlink(path)
		if err != nil {
			continue
		}
		old, err := os.Stat(path)
		if err != nil {
			continue
		}
		link := "pg_tblspc/" + filepath.Base(path)
		if p := r.places[link]; p != nil {
			if here, err := p.root.Stat("."); err == nil && os.SameFile(old, here) {
				continue
			}
		}
		r.opts.Log.Warn("a tablespace of the old data directory is not used any more: its files stay",
			zap.String("link", link), zap.String("directory", to))
	}
	return nil
}

// isKept reports whether a path is, or is in, what the user keeps.
func (r *run) isKept(p string) bool {
	if len(r.kept) == 0 {
		return false
	}
	first, _, _ := strings.Cut(p, "/")
	return r.kept[first]
}

// listKept enters what is kept into backup_manifest, as it is: the server's
// pg_verifybackup wants to know all files.
func (r *run) listKept(list *backupManifest) error {
	for name := range r.kept {
		top := filepath.Join(r.opts.PGData, name)
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := os.Stat(p) // pg_verifybackup follows links
			if err != nil || !st.Mode().IsRegular() {
				return nil
			}
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			h := crc32.New(castagnoli)
			n, err := io.Copy(h, f)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(r.opts.PGData, p)
			list.add(rel, n, st.ModTime(), h.Sum32())
			return err
		})
		if err != nil {
			return fmt.Errorf("read %s, which is kept: %w", top, err)
		}
	}
	return nil
}

// occupied is how much room the files in a directory take that a restore in
// place writes over or removes.
func occupied(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // an estimate
		}
		if st, err := d.Info(); err == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Nlink == 1 {
				n += sys.Blocks * 512
			}
		}
		return nil
	})
	return n
}
