package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// entryKind is what an entry will be in the backup.
type entryKind uint8

const (
	kindDir entryKind = iota
	kindFile
	kindLink // a tablespace's link under pg_tblspc
)

// entry is one file, directory or tablespace link of the backup, as the walk
// found it.
type entry struct {
	path  string // relative to PGDATA, with '/'
	kind  entryKind
	mode  uint32 // permission bits, setuid, setgid, sticky
	uid   uint32
	gid   uint32
	mtime time.Time
	size  int64  // at the time of the walk; files change
	link  string // target of a kindLink

	// relation says that this is a file of pages; segment is the number of
	// its gigabyte.
	relation bool
	segment  uint32
	fork     fork
	// ctime is when the file was last written or otherwise changed, by the
	// kernel's clock, which nobody can set back for a file.
	ctime time.Time
}

// walker goes through a PGDATA in the order of the manifest: depth first, the
// names of each directory in byte order. In memory are only the names of the
// directories that it is inside of.
type walker struct {
	root string
	// versionDir is the one directory inside a tablespace that belongs to
	// this server, "PG_15_202209061".
	versionDir string
	summaries  bool // servers from 17 on have pg_wal/summaries
	log        *zap.Logger
	quiet      bool // no warnings: this is the second walk

	emit func(entry) error

	// tablespaces are directories that are reached through a link under
	// pg_tblspc as well: their contents belong there, and only there.
	tablespaces []fs.FileInfo
	inside      []fs.FileInfo // the directories that were entered, outermost first
}

// walk calls emit for everything that belongs to the backup, the root as "."
// first, except global/pg_control, which the backup copies last. It stops at
// emit's first error. Files and directories that vanish during the walk are no
// error.
func (w *walker) walk(ctx context.Context) error {
	if err := w.findTablespaces(); err != nil {
		return err
	}
	st, err := os.Stat(w.root)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	if err := w.emit(newEntry(".", kindDir, st)); err != nil {
		return err
	}
	return w.dir(ctx, "", st)
}

// findTablespaces remembers which directories the links point to, so that one
// that lies inside PGDATA is not copied twice.
func (w *walker) findTablespaces() error {
	names, err := readNames(filepath.Join(w.root, "pg_tblspc"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the tablespace links: %w", err)
	}
	for i := range names.len() {
		p := filepath.Join(w.root, "pg_tblspc", names.at(i))
		if l, err := os.Lstat(p); err != nil || l.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			w.tablespaces = append(w.tablespaces, st)
		}
	}
	return nil
}

// dir walks the contents of one directory.
func (w *walker) dir(ctx context.Context, path string, st fs.FileInfo) error {
	for _, up := range w.inside {
		if os.SameFile(up, st) {
			w.warn("link leads back to a directory above it: left out", path)
			return nil
		}
	}
	names, err := readNames(filepath.Join(w.root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	w.inside = append(w.inside, st)
	defer func() { w.inside = w.inside[:len(w.inside)-1] }()

	isDB := isDatabaseDir(path)
	pages := isDB || path == "global"
	for i := range names.len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := names.at(i)
		if leftOut(name) || isDB && isTempRelFile(name) {
			continue
		}
		rel, isRel := relFile{}, false
		if pages {
			rel, isRel = parseRelFile(name)
		}
		if isRel && rel.fork != forkInit && names.has(rel.number+"_init") {
			continue // unlogged: the server makes it anew from its init fork
		}
		p := name
		if path != "" {
			p = path + "/" + name
		}
		if p == "global/pg_control" {
			continue
		}
		if err := w.one(ctx, p, name, isRel, rel); err != nil {
			return err
		}
	}
	return nil
}

// one handles one name.
func (w *walker) one(ctx context.Context, path, name string, isRel bool, rel relFile) error {
	full := filepath.Join(w.root, path)
	st, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	if strings.HasPrefix(path, "pg_tblspc/") && strings.Count(path, "/") == 1 {
		return w.tablespace(ctx, path, full, st)
	}
	link := st.Mode()&fs.ModeSymlink != 0
	if link {
		if st, err = os.Stat(full); err != nil {
			w.warn("link leads nowhere: left out", path)
			return nil
		}
	}
	switch {
	case st.IsDir():
		return w.subdir(ctx, path, name, st, link)
	case st.Mode().IsRegular():
		if link {
			w.warn("link to a file: its contents are stored in its place", path)
		}
		e := newEntry(path, kindFile, st)
		e.relation, e.segment, e.fork = isRel, rel.segment, rel.fork
		return w.emit(e)
	default:
		w.warn("neither file nor directory: left out", path)
		return nil
	}
}

// serverDirs are the directories that PostgreSQL itself keeps data in.
var serverDirs = map[string]bool{
	"base": true, "global": true, "pg_commit_ts": true, "pg_logical": true,
	"pg_multixact": true, "pg_stat": true, "pg_tblspc": true, "pg_twophase": true,
	"pg_xact": true,
}

func (w *walker) subdir(ctx context.Context, path, name string, st fs.FileInfo, link bool) error {
	e := newEntry(path, kindDir, st)
	top, _, _ := strings.Cut(path, "/")
	switch {
	case emptiedDirs[name]:
		return w.emit(e)
	case path == "pg_wal":
		return w.walDir(e)
	case link && !serverDirs[top]:
		// Logs and the like that the administrator moved away. What the
		// server cannot do without is followed, unlike in pg_basebackup,
		// whose backup would not start.
		w.warn("link to a directory that is not PostgreSQL's own: left out", path)
		return nil
	case link:
		w.warn("link to a directory: its contents are stored in its place", path)
	}
	if err := w.emit(e); err != nil {
		return err
	}
	for _, t := range w.tablespaces {
		if os.SameFile(t, st) {
			return nil // its contents come under pg_tblspc
		}
	}
	return w.dir(ctx, path, st)
}

// walDir keeps pg_wal and what the server wants to find in it, all empty: WAL
// comes from the archive. A pg_wal that is a link becomes a plain directory.
func (w *walker) walDir(e entry) error {
	if err := w.emit(e); err != nil {
		return err
	}
	e.path = "pg_wal/archive_status"
	if err := w.emit(e); err != nil || !w.summaries {
		return err
	}
	e.path = "pg_wal/summaries"
	return w.emit(e)
}

// tablespace handles one name in pg_tblspc: a link, or, with
// allow_in_place_tablespaces, a directory.
func (w *walker) tablespace(ctx context.Context, path, full string, st fs.FileInfo) error {
	link := st.Mode()&fs.ModeSymlink != 0
	if !link && !st.IsDir() || !allDigits(filepath.Base(path)) || filepath.Base(path)[0] == '0' {
		w.warn("not a tablespace: left out", path)
		return nil
	}
	e := newEntry(path, kindDir, st)
	if link {
		e.kind = kindLink
		target, err := os.Readlink(full)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the tablespace links: %w", err)
		}
		e.link = target
	}
	if err := w.emit(e); err != nil {
		return err
	}
	version := path + "/" + w.versionDir
	vst, err := os.Lstat(filepath.Join(w.root, version))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read tablespace %s: %w", filepath.Base(path), err)
	}
	if !vst.IsDir() {
		w.warn("not a directory: left out", version)
		return nil
	}
	if err := w.emit(newEntry(version, kindDir, vst)); err != nil {
		return err
	}
	return w.dir(ctx, version, vst)
}

func (w *walker) warn(why, path string) {
	if !w.quiet {
		w.log.Warn(why, zap.String("path", path))
	}
}

func newEntry(path string, kind entryKind, st fs.FileInfo) entry {
	e := entry{path: path, kind: kind, mode: uint32(st.Mode().Perm()), mtime: st.ModTime(), size: st.Size()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		e.mode, e.uid, e.gid = sys.Mode&0o7777, sys.Uid, sys.Gid
		e.ctime = time.Unix(sys.Ctim.Unix())
	}
	if kind != kindFile {
		e.size = 0
	}
	return e
}
