package filesystem

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// maxOpenDirs bounds the directories that are kept open while unused.
const maxOpenDirs = 32

// dirs opens the directories that Puts write to, makes those that are missing,
// and knows which of them are durable.
//
// A name in a directory is durable only if the directory itself is, in its
// parent, and so on up to the root. That another process made a directory says
// nothing: it may not have come to its fsync yet. To sync all ancestors in every
// Put would be right but slow, and to remember paths would be wrong: a directory
// may be removed when it becomes empty and be made again by somebody else. So an
// open directory is what is remembered: acquire opens it and syncs its ancestors
// before anything is put there; unless an object is there, whose Put did so. As long as it stays open it is that very
// directory; once it has been removed every attempt to create something in it
// fails with ENOENT, and the caller forgets it and begins again (see with).
// Parents of a directory cannot be removed before it.
type dirs struct {
	root string
	mode uint32

	mu    sync.Mutex // guards what follows
	open  map[string]*dir
	clock int64 // counts uses, for the choice of what to close
}

// dir is an open directory that is durable up to the root.
type dir struct {
	*os.File
	path string

	// Guarded by dirs.mu.
	users    int
	lastUsed int64
	dropped  bool // no longer in dirs.open: close it after its last user

	turn sync.Mutex // held during an fsync
	mu   sync.Mutex // guards next
	next *round
}

// round is one fsync of a directory, shared by all who asked before it began.
type round struct {
	over chan struct{}
	err  error // set before over is closed
}

func newDirs(root string, mode uint32) *dirs {
	return &dirs{root: root, mode: mode, open: map[string]*dir{}}
}

// acquire returns the directory path ("" is the root), made if it is missing.
// Give it back with release.
func (d *dirs) acquire(path string) (*dir, error) { return d.reach(path, d.openOrMake) }

// warm begins to acquire the directory path, if it is there, and returns a
// function that waits until that has ended. What goes wrong, the acquire that
// follows finds out too.
func (d *dirs) warm(path string) (wait func()) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		if one, err := d.reach(path, openDirAt); err == nil {
			d.release(one)
		}
	}()
	return func() { <-over }
}

// level is a directory on the way to the one that is wanted.
type level struct {
	path string
	file *os.File
}

// reach opens path and those of its ancestors that are not open, and makes
// them durable, all at the same time: file systems with a journal do it in one.
func (d *dirs) reach(path string, open func(parent *os.File, name string) (*os.File, error)) (*dir, error) {
	if found := d.lookup(path); found != nil {
		return found, nil
	}
	if path == "" {
		f, err := os.OpenFile(d.root, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil, errNoRoot
		}
		if err != nil {
			return nil, err
		}
		return d.insert(path, f), nil
	}
	base, names, err := d.nearest(path)
	if err != nil {
		return nil, err
	}
	defer d.release(base)
	levels := make([]level, 0, len(names))
	below := level{base.path, base.File}
	for _, name := range names {
		f, err := open(below.file, name)
		if err != nil {
			return nil, errors.Join(err, closeAll(levels))
		}
		below = level{child(below.path, name), f}
		levels = append(levels, below)
	}
	if err := d.syncParents(base, levels); err != nil {
		return nil, errors.Join(err, closeAll(levels))
	}
	for _, l := range levels[:len(levels)-1] {
		d.release(d.insert(l.path, l.file))
	}
	return d.insert(path, below.file), nil
}

// nearest is the lowest open directory above path, in use, or the root, and the
// names that lead from it to path.
func (d *dirs) nearest(path string) (*dir, []string, error) {
	var names []string
	for path != "" {
		above, name := split(path)
		path, names = above, slices.Insert(names, 0, name)
		if found := d.lookup(path); found != nil {
			return found, names, nil
		}
	}
	base, err := d.reach("", nil)
	return base, names, err
}

// syncParents makes the names of levels durable. If one was removed and made
// again since it was opened, this makes the wrong one durable; but then ours
// is dead and takes no names.
func (d *dirs) syncParents(base *dir, levels []level) error {
	if levels[0].path == uploads {
		return nil // a name there need not survive anything: it is a mark, of what its own link makes durable
	}
	if inUse(levels[len(levels)-1].file, time.Now()) {
		return nil
	}
	var g errgroup.Group
	g.Go(func() error { return inDir(base.path, base.sync()) })
	for _, l := range levels[:len(levels)-1] {
		g.Go(func() error { return inDir(l.path, syncDir(l.file)) })
	}
	return g.Wait()
}

// settled is how long an object must have been in a directory to prove that its
// ancestors are durable. Whoever put it made them so before; only a repository
// that somebody copied here without a sync did not go this way, and that the
// kernel has long written by then (ext4 within 5 seconds, others within 30).
const settled = 2 * time.Minute

// inUse reports whether a directory holds an object that has been there for a
// while. So a process that puts one object, such as an archive_command, need not
// sync all of its ancestors, each of which costs a flush of the disk's cache.
func inUse(leaf *os.File, now time.Time) bool {
	names, err := leaf.Readdirnames(16)
	if err != nil {
		return false // io.EOF: it is empty
	}
	for _, name := range names {
		st, err := stat(leaf, name)
		if err == nil && isRegular(st) && now.Sub(time.Unix(st.Ctim.Unix())) > settled {
			return true
		}
	}
	return false
}

func child(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

func inDir(path string, err error) error {
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

func closeAll(levels []level) error {
	var errs []error
	for _, l := range levels {
		errs = append(errs, l.file.Close())
	}
	return errors.Join(errs...)
}

func (d *dirs) openOrMake(parent *os.File, name string) (*os.File, error) {
	f, err := openDirAt(parent, name)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	err = again(func() error { return unix.Mkdirat(int(parent.Fd()), name, d.mode) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make directory %s: %w", name, err)
	}
	made := err == nil
	if f, err = openDirAt(parent, name); err != nil || !made {
		return f, err
	}
	if err := chmod(f, d.mode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// chmod gives f its permissions where the umask kept some back.
func chmod(f *os.File, mode uint32) error {
	st, err := statOpen(f)
	if err == nil && uint32(st.Mode)&0o777 != mode {
		err = again(func() error { return unix.Fchmod(int(f.Fd()), uint32(st.Mode)&^0o777&0o7777|mode) })
	}
	return err
}

func (d *dirs) lookup(path string) *dir {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := d.open[path]
	if found != nil {
		d.use(found)
	}
	return found
}

// use counts a user. d.mu is held.
func (d *dirs) use(one *dir) {
	d.clock++
	one.lastUsed = d.clock
	one.users++
}

// insert remembers f as path and returns it in use. If another goroutine was
// faster, its directory is replaced: either may be the dead one, and then is
// found out.
func (d *dirs) insert(path string, f *os.File) *dir {
	fresh := &dir{File: f, path: path}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(path)
	d.use(fresh)
	d.open[path] = fresh
	for len(d.open) > maxOpenDirs {
		oldest := fresh
		for _, one := range d.open {
			if one.users == 0 && one.lastUsed < oldest.lastUsed {
				oldest = one
			}
		}
		if oldest == fresh {
			break // all are in use
		}
		d.drop(oldest.path)
	}
	return fresh
}

// drop forgets path. d.mu is held.
func (d *dirs) drop(path string) {
	one := d.open[path]
	if one == nil {
		return
	}
	delete(d.open, path)
	one.dropped = true
	if one.users == 0 {
		_ = one.Close() // opened for reading: nothing to lose
	}
}

// keep adds a use of a directory that is in use.
func (d *dirs) keep(one *dir) *dir {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.use(one)
	return one
}

// release ends one use.
func (d *dirs) release(one *dir) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one.users--; one.users == 0 && one.dropped {
		_ = one.Close()
	}
}

// forget drops path and all above it, the root too: it may have been replaced.
func (d *dirs) forget(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; path != ""; path, _ = split(path) {
		d.drop(path)
	}
	d.drop("")
}

// with calls do with the directory path, made if it is missing, and begins again
// if it is removed meanwhile. The bound is for file systems that answer ENOENT
// for reasons of their own: to lose this often against a Delete is not credible.
func (d *dirs) with(path string, do func(*dir) error) error {
	var err error
	for range 100 {
		var one *dir
		if one, err = d.acquire(path); err == nil {
			err = do(one)
			d.release(one)
		}
		if !gone(err) {
			return err
		}
		d.forget(path)
	}
	return err
}

func (d *dirs) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path := range d.open {
		d.drop(path)
	}
	return nil
}

// sync makes the names durable that were in the directory when it was called.
// One fsync runs at a time; those who ask while it runs share the next one.
func (d *dir) sync() error {
	d.mu.Lock()
	mine, first := d.next, false
	if mine == nil {
		mine, first = &round{over: make(chan struct{})}, true
		d.next = mine
	}
	d.mu.Unlock()
	if !first {
		<-mine.over
		return mine.err
	}
	d.turn.Lock()
	defer d.turn.Unlock()
	d.mu.Lock()
	d.next = nil // who asks from here on comes too late for this fsync
	d.mu.Unlock()
	mine.err = syncDir(d.File)
	close(mine.over)
	return mine.err
}
