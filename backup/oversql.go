package backup

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// SourceSQL is repo.Summary.Source of a backup that was read over SQL.
const SourceSQL = "sql"

// OverSQL is the data directory of a server as a source that is read through the
// server itself. What is not as on its own disk:
//
//   - Owners are not known, modes are those that the server gives its files
//     (data_directory_mode), times are to the second. So times prove nothing (place
//     is nil), and a scan looks at every page.
//   - Links cannot be told from what they lead to, but for those of pg_tblspc. A
//     directory of the administrator that is a link is stored in its place.
//   - A directory is listed with the sizes of its files at once, which can be
//     hours before the last of them is read. Of a relation's file that size counts:
//     the list is made after the backup has begun, so what came later is replayed.
//     Other files are looked at again when they are opened.
//   - A file is opened for every megabyte. When it vanishes in between, or
//     another one takes its place, then there is WAL of that from after the start of
//     the backup: the relation was dropped, truncated or made anew, and replay
//     makes its file what it is to be, whatever is in it.
//
// Nothing is opened that was listed as empty: it may be a socket or a pipe.
func OverSQL(files *server.Files) Source { return overSQL{files} }

type overSQL struct{ files *server.Files }

func (s overSQL) pgdata() string { return s.files.Directory() }

func (overSQL) name() string { return SourceSQL }

func (overSQL) place() *repo.Place { return nil }

// belongs: every session of files is with the very server that the backup runs
// on.
func (overSQL) belongs(context.Context, server.Info) error { return nil }

func (s overSQL) stat(ctx context.Context, path string) (found, error) {
	info, err := s.files.Stat(ctx, path)
	if err != nil {
		return found{}, err
	}
	return s.foundAs(path, info), nil
}

// foundAs is what a path is. Directories are told apart by their paths.
func (s overSQL) foundAs(path string, info server.FileInfo) found {
	e := entry{path: path, kind: kindFile, uid: noOwner, gid: noOwner, mtime: info.Modified, size: info.Size}
	e.mode = s.files.DirectoryMode()
	if info.Dir {
		e.kind, e.size = kindDir, 0
		return found{entry: e, id: identity{path: filepath.Clean(path)}}
	}
	e.mode &^= 0o111
	return found{entry: e}
}

// sqlList is a directory.
type sqlList struct {
	*server.Listing
	from overSQL
	path string
}

func (l sqlList) len() int { return l.Len() }

func (l sqlList) at(i int) string { return l.Name(i) }

func (s overSQL) list(ctx context.Context, path string) (listing, error) {
	if path == "" {
		path = "."
	}
	l, err := s.files.List(ctx, path)
	return sqlList{l, s, path}, err
}

func (l sqlList) look(_ context.Context, i int) (found, error) {
	name := l.at(i)
	path := below(l.path, name)
	info, err := l.Info(i)
	switch {
	case errors.Is(err, server.ErrName):
		return found{entry: entry{path: path}, leftOut: err.Error() + ": left out"}, nil
	case err != nil:
		return found{}, err
	case info.Size == 0 && strings.HasPrefix(name, ".s.PGSQL."):
		return found{entry: entry{path: path}, leftOut: "a socket: left out"}, nil
	}
	return l.from.foundAs(path, info), nil
}

func (s overSQL) tablespace(ctx context.Context, path string) (found, error) {
	location, err := s.location(ctx, filepath.Base(path))
	if err != nil {
		return found{}, err
	}
	if location == path { // in place
		return s.stat(ctx, path)
	}
	return found{entry: entry{path: path, kind: kindLink, mode: 0o777, uid: noOwner, gid: noOwner, link: location}, linked: true}, nil
}

func (s overSQL) location(ctx context.Context, name string) (string, error) {
	oid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return "", fs.ErrNotExist // no server makes such a name
	}
	return s.files.TablespaceLocation(ctx, uint32(oid))
}

// tablespaces are those inside the data directory.
func (s overSQL) tablespaces(ctx context.Context) (map[identity]bool, error) {
	if s.pgdata() == "" {
		return nil, nil // not known: what is in one is stored twice
	}
	links, err := s.files.List(ctx, "pg_tblspc")
	if err != nil {
		return nil, err
	}
	all := map[identity]bool{}
	for i := range links.Len() {
		if !allDigits(links.Name(i)) {
			continue
		}
		location, err := s.location(ctx, links.Name(i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if inside, ok := strings.CutPrefix(location, s.pgdata()+"/"); ok {
			all[identity{path: filepath.Clean(inside)}] = true
		}
	}
	return all, nil
}

func (s overSQL) readFile(ctx context.Context, path string) ([]byte, error) {
	f, err := s.open(ctx, entry{path: path})
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(f.size(), chunkSize)) // such files are small
	n, err := f.readAt(ctx, b, 0)
	return b[:n], err
}

// sqlFile is a file, of which only the name is held.
type sqlFile struct {
	from   overSQL
	path   string
	length int64
}

func (s overSQL) open(ctx context.Context, e entry) (file, error) {
	if e.relation {
		return sqlFile{s, e.path, e.size}, nil
	}
	info, err := s.files.Stat(ctx, e.path)
	if err != nil {
		return nil, err
	}
	if info.Dir {
		return nil, fs.ErrNotExist
	}
	return sqlFile{s, e.path, info.Size}, nil
}

func (f sqlFile) size() int64 { return f.length }

func (f sqlFile) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		part := p[n:min(len(p), n+chunkSize)]
		k, err := f.from.files.ReadAt(ctx, f.path, part, off+int64(n))
		n += k
		if err != nil || k < len(part) {
			return n, err
		}
	}
	return n, nil
}

func (sqlFile) willNeed(int64, int64) {}

func (sqlFile) close() {}
