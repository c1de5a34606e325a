package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
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

// walker goes through a data directory in the order of the manifest: depth
// first, the names of each directory in byte order. In memory are only the
// listings of the directories that it is inside of.
type walker struct {
	from Source
	// versionDir is the one directory inside a tablespace that belongs to
	// this server, "PG_15_202209061".
	versionDir string
	summaries  bool // servers from 17 on have pg_wal/summaries
	log        *zap.Logger
	quiet      bool // no warnings: this is the second walk

	emit func(entry) error

	// tablespaces are directories that are reached through a link under
	// pg_tblspc as well: their contents belong there, and only there.
	tablespaces map[identity]bool
	inside      []identity // the directories that were entered, outermost first
}

// walk calls emit for everything that belongs to the backup, the root as "."
// first, except global/pg_control, which the backup copies last. It stops at
// emit's first error. Files and directories that vanish during the walk are no
// error.
func (w *walker) walk(ctx context.Context) error {
	var err error
	if w.tablespaces, err = w.from.tablespaces(ctx); err != nil {
		return fmt.Errorf("read the tablespace links: %w", err)
	}
	root, err := w.from.stat(ctx, ".")
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	if err := w.emit(root.entry); err != nil {
		return err
	}
	return w.dir(ctx, "", root.id)
}

// dir walks the contents of one directory.
func (w *walker) dir(ctx context.Context, path string, id identity) error {
	if slices.Contains(w.inside, id) {
		w.warn("link leads back to a directory above it: left out", path)
		return nil
	}
	names, err := w.from.list(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	w.inside = append(w.inside, id)
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
		if isRel && rel.fork != forkInit && hasName(names, rel.number+"_init") {
			continue // unlogged: the server makes it anew from its init fork
		}
		switch p := below(path, name); {
		case p == pg.ControlFile:
		case path == "pg_tblspc":
			err = w.tablespace(ctx, p, name)
		default:
			err = w.one(ctx, names, i, p, isRel, rel)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// below is a name in a directory of the data directory; "" or "." is itself.
func below(dir, name string) string {
	if dir == "" || dir == "." {
		return name
	}
	return dir + "/" + name
}

// one handles one name.
func (w *walker) one(ctx context.Context, names listing, i int, path string, isRel bool, rel relFile) error {
	f, err := names.look(ctx, i)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	switch {
	case f.leftOut != "":
		w.warn(f.leftOut, path)
		return nil
	case f.kind == kindDir:
		return w.subdir(ctx, f)
	}
	if f.linked {
		w.warn("link to a file: its contents are stored in its place", path)
	}
	f.relation, f.segment, f.fork = isRel, rel.segment, rel.fork
	return w.emit(f.entry)
}

// serverDirs are the directories that PostgreSQL itself keeps data in.
var serverDirs = map[string]bool{
	"base": true, "global": true, "pg_commit_ts": true, "pg_logical": true,
	"pg_multixact": true, "pg_stat": true, "pg_tblspc": true, "pg_twophase": true,
	"pg_xact": true,
}

func (w *walker) subdir(ctx context.Context, f found) error {
	top, _, _ := strings.Cut(f.path, "/")
	name := f.path[strings.LastIndexByte(f.path, '/')+1:]
	switch {
	case emptiedDirs[name]:
		return w.emit(f.entry)
	case f.path == "pg_wal":
		return w.walDir(f.entry)
	case f.linked && !serverDirs[top]:
		// Logs and the like that the administrator moved away. What the
		// server cannot do without is followed, unlike in pg_basebackup,
		// whose backup would not start.
		w.warn("link to a directory that is not PostgreSQL's own: left out", f.path)
		return nil
	case f.linked:
		w.warn("link to a directory: its contents are stored in its place", f.path)
	}
	if err := w.emit(f.entry); err != nil {
		return err
	}
	if w.tablespaces[f.id] {
		return nil // its contents come under pg_tblspc
	}
	return w.dir(ctx, f.path, f.id)
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

const notATablespace = "not a tablespace: left out"

// tablespace handles one name in pg_tblspc: a link, or, with
// allow_in_place_tablespaces, a directory.
func (w *walker) tablespace(ctx context.Context, path, name string) error {
	if !allDigits(name) || name[0] == '0' {
		w.warn(notATablespace, path)
		return nil
	}
	f, err := w.from.tablespace(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read the tablespace links: %w", err)
	case f.leftOut != "":
		w.warn(f.leftOut, path)
		return nil
	}
	if err := w.emit(f.entry); err != nil {
		return err
	}
	version, err := w.from.stat(ctx, path+"/"+w.versionDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read tablespace %s: %w", name, err)
	}
	if version.kind != kindDir || version.leftOut != "" {
		w.warn("not a directory: left out", path+"/"+w.versionDir)
		return nil
	}
	if err := w.emit(version.entry); err != nil {
		return err
	}
	return w.dir(ctx, version.path, version.id)
}

func (w *walker) warn(why, path string) {
	if !w.quiet {
		w.log.Warn(why, zap.String("path", path))
	}
}
