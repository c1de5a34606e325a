package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/walkeep/walkeep/repo"
)

// sweep makes an existing directory one in which a restore in place can write:
// what is left is directories, and regular files with one name, that the
// backup has at the same path, and what the user keeps. All else is removed:
// what the backup does not have, what is of another kind there, links, and
// files with a second name, which somebody else would see change.
//
// It goes through the manifest and the directory side by side, both in the
// manifest's order, so that its memory is bounded by the names of the largest
// directory.
type sweep struct {
	r    *run
	next *repo.FileEntry // the manifest's next entry, nil at its end
	// removed counts what was removed, for the log.
	removed int64
}

func (r *run) sweep() (err error) {
	s := &sweep{r: r}
	if err := s.advance(); err != nil {
		return err
	}
	if s.next != nil && s.next.Path == "." {
		if err := s.advance(); err != nil {
			return err
		}
	}
	if err := s.dir(r.places[""], ".", ""); err != nil {
		return err
	}
	r.opts.Log.Sugar().Debugf("removed %d files and directories that the backup does not have", s.removed)
	return r.manifest.Rewind()
}

// advance reads on to the next entry that is written in the order of the walk.
func (s *sweep) advance() error {
	for {
		e, err := s.r.manifest.Next()
		switch {
		case errors.Is(err, io.EOF):
			s.next = nil
			return nil
		case err != nil:
			return err
		case isLast(e.Path):
			continue
		}
		s.next = &e
		return nil
	}
}

// isLast says which files come at the end of a manifest. They are small, and
// written anew.
func isLast(p string) bool { return p == "backup_label" || p == "tablespace_map" || p == controlFile }

// skip passes over all entries below a path.
func (s *sweep) skip(p string) error {
	for s.next != nil && strings.HasPrefix(s.next.Path, p+"/") {
		if err := s.advance(); err != nil {
			return err
		}
	}
	return nil
}

// dir sweeps one directory: inside is its path in the place, p its path in the
// manifest.
func (s *sweep) dir(pl *place, inside, p string) error {
	names, err := sortedNames(pl, inside)
	if err != nil {
		return err
	}
	prefix := p + "/"
	if p == "" {
		prefix = ""
	}
	for {
		var entry string
		if s.next != nil && strings.HasPrefix(s.next.Path, prefix) {
			entry = s.next.Path[len(prefix):]
		}
		switch {
		case entry == "" && len(names) == 0:
			return nil
		case len(names) == 0 || entry != "" && entry < names[0]: // not here
			if err := s.absent(); err != nil {
				return err
			}
		case entry == names[0]:
			if err := s.both(pl, path.Join(inside, names[0])); err != nil {
				return err
			}
			names = names[1:]
		default:
			if err := s.strange(pl, path.Join(inside, names[0]), prefix+names[0]); err != nil {
				return err
			}
			names = names[1:]
		}
	}
}

// sortedNames are the names in a directory, in byte order.
func sortedNames(pl *place, inside string) ([]string, error) {
	// What somebody closed is opened: it is ours, and gets its mode at the end.
	if st, err := pl.root.Lstat(inside); err == nil && st.Mode().Perm()&0o700 != 0o700 {
		if err := pl.root.Chmod(inside, 0o700); err != nil {
			return nil, fmt.Errorf("open directory %s: %w", filepath.Join(pl.path, inside), err)
		}
	}
	d, err := pl.root.Open(inside)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", filepath.Join(pl.path, inside), err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", filepath.Join(pl.path, inside), err)
	}
	slices.Sort(names)
	return names, nil
}

// absent passes over an entry that is not in the directory. What is in places
// of their own is swept all the same.
func (s *sweep) absent() error {
	p := s.next.Path
	if err := s.advance(); err != nil {
		return err
	}
	if pl := s.r.places[p]; pl != nil {
		return s.place(pl, p)
	}
	return s.skip(p)
}

// both looks at an entry of which the directory has the name too.
func (s *sweep) both(pl *place, inside string) error {
	e := *s.next
	if err := s.advance(); err != nil {
		return err
	}
	if s.r.kept[e.Path] {
		return s.skip(e.Path)
	}
	st, err := pl.root.Lstat(inside)
	if err != nil {
		return fmt.Errorf("look at %s: %w", filepath.Join(pl.path, inside), err)
	}
	if other := s.r.places[e.Path]; other != nil {
		if err := s.remove(pl, inside); err != nil { // a link; made anew
			return err
		}
		return s.place(other, e.Path)
	}
	switch {
	case e.Type == repo.Directory && st.IsDir():
		return s.dir(pl, inside, e.Path)
	case e.Type == repo.RegularFile && st.Mode().IsRegular() && links(st) == 1:
		return nil
	}
	if err := s.remove(pl, inside); err != nil {
		return err
	}
	return s.skip(e.Path)
}

func links(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(sys.Nlink)
	}
	return 0
}

// strange removes what the backup does not have.
func (s *sweep) strange(pl *place, inside, p string) error {
	if inside == markerFile || s.r.kept[p] {
		return nil
	}
	return s.remove(pl, inside)
}

func (s *sweep) remove(pl *place, inside string) error {
	s.removed++
	err := pl.root.RemoveAll(inside)
	if errors.Is(err, fs.ErrPermission) { // a directory that its owner closed
		_ = filepath.WalkDir(filepath.Join(pl.path, inside), func(p string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
		err = pl.root.RemoveAll(inside)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(pl.path, inside), err)
	}
	return nil
}

// place sweeps a directory elsewhere, to which a link leads. In a tablespace's
// only the server version's own directory is this cluster's: another one, of
// before pg_upgrade, may be there.
func (s *sweep) place(pl *place, p string) error {
	if _, tablespace := s.r.survey.links[p]; !tablespace {
		return s.dir(pl, ".", p)
	}
	for s.next != nil && strings.HasPrefix(s.next.Path, p+"/") {
		name := s.next.Path[len(p)+1:]
		_, err := pl.root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = s.absent()
		case err == nil:
			err = s.both(pl, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
