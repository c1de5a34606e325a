package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/walkeep/walkeep/repo"
)

// dir is an open directory of the tree. It is counted, because files in it are
// written by workers long after the walk went on. Opening files by one name in
// an open directory saves looking up the whole path for each of them.
type dir struct {
	root   *os.Root
	refs   atomic.Int32
	opened *opened
}

func (d *dir) hold() *dir { d.refs.Add(1); return d }

func (d *dir) drop() {
	if d.refs.Add(-1) == 0 {
		d.opened.remove(d.root)
		_ = d.root.Close()
	}
}

// opened are the directories and files that are open for writing: a restore that
// ends early closes them, so that a service that rehearses restores does not run
// out of descriptors, nor keep a file system from being unmounted.
type opened struct {
	mu  sync.Mutex // guards all
	all map[io.Closer]struct{}
}

func (o *opened) add(c io.Closer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[io.Closer]struct{}{}
	}
	o.all[c] = struct{}{}
}

func (o *opened) remove(c io.Closer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, c)
}

// close closes what is left, when nobody works any more.
func (o *opened) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.all {
		_ = c.Close()
	}
	o.all = nil
}

// tree makes directories in the order of the manifest and hands out open ones.
// One goroutine uses it.
type tree struct {
	places map[string]*place // by link of the tablespace; "" is PGDATA
	survey *survey
	dest   map[string]string // where tablespaces go, by link
	owners *owners
	delta  bool // directories may be there
	opened opened

	current *dir
	at      string // path of current
	// made are the directories, whose modes and times are set at the end:
	// there are few of them, even where there are a million files.
	made []repo.FileEntry
}

// split is the place of a path and the path inside.
func (t *tree) split(p string) (*place, string) {
	link := t.survey.placeOf(p)
	if link == "" {
		return t.places[""], p
	}
	if p == link {
		return t.places[link], "."
	}
	return t.places[link], p[len(link)+1:]
}

// dirOf opens the directory of a path; the caller drops it.
func (t *tree) dirOf(p string) (*dir, error) {
	parent := path.Dir(p)
	if t.current != nil && t.at == parent {
		return t.current.hold(), nil
	}
	t.leave()
	pl, inside := t.split(parent)
	root, err := pl.root.OpenRoot(inside)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", parent, err)
	}
	t.opened.add(root)
	t.current, t.at = &dir{root: root, opened: &t.opened}, parent
	t.current.hold()
	return t.current.hold(), nil
}

func (t *tree) leave() {
	if t.current != nil {
		t.current.drop()
		t.current = nil
	}
}

// mkdir makes a directory, open for ourselves only until finish. One that is
// mapped elsewhere becomes a link.
func (t *tree) mkdir(f *repo.FileEntry) error {
	if _, ok := t.dest[f.Path]; ok {
		link := *f
		link.Type = repo.Symlink
		if err := t.symlink(&link); err != nil {
			return err
		}
	}
	if f.Path != "." && t.survey.placeOf(f.Path) != f.Path {
		pl, inside := t.split(f.Path)
		if err := pl.root.Mkdir(inside, 0o700); err != nil && !(t.delta && errors.Is(err, fs.ErrExist)) {
			return fmt.Errorf("make directory %s: %w", f.Path, noSpace(err))
		}
	}
	t.made = append(t.made, repo.FileEntry{Path: f.Path, Mode: f.Mode, Owner: f.Owner, Group: f.Group, MTime: f.MTime})
	return nil
}

// symlink makes a link: of a tablespace to where it goes here.
func (t *tree) symlink(f *repo.FileEntry) error {
	target := f.Link
	if d, ok := t.dest[f.Path]; ok {
		target = d
	}
	root := t.places[""].root
	if err := root.Symlink(target, f.Path); err != nil {
		return fmt.Errorf("make link %s: %w", f.Path, noSpace(err))
	}
	if uid, gid, ok := t.owners.of(f); ok {
		if err := root.Lchown(f.Path, uid, gid); err != nil {
			return fmt.Errorf("give away link %s: %w", f.Path, err)
		}
	}
	return nil
}

// finish sets owner, mode and time of all directories, the inner ones first.
// before is what PGDATA itself is to be.
func (t *tree) finish(self repo.FileEntry) error {
	for link := range t.survey.links {
		t.made = append(t.made, repo.FileEntry{Path: link, Mode: self.Mode, Owner: self.Owner, Group: self.Group})
	}
	if len(t.made) == 0 || t.made[0].Path != "." {
		t.made = append([]repo.FileEntry{self}, t.made...)
	}
	for i := len(t.made) - 1; i >= 0; i-- {
		d := &t.made[i]
		pl, inside := t.split(d.Path)
		if uid, gid, ok := t.owners.of(d); ok {
			if err := pl.root.Chown(inside, uid, gid); err != nil {
				return fmt.Errorf("give away directory %s: %w", d.Path, err)
			}
		}
		if err := pl.root.Chmod(inside, os.FileMode(d.Mode&0o777)); err != nil {
			return fmt.Errorf("set mode of directory %s: %w", d.Path, err)
		}
		if !d.MTime.IsZero() {
			if err := pl.root.Chtimes(inside, time.Time{}, d.MTime); err != nil {
				return fmt.Errorf("set time of directory %s: %w", d.Path, err)
			}
		}
	}
	return nil
}
