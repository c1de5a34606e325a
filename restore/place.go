package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// markerFile is the first file in a directory that is being restored into, and
// the last to go. What is in a directory with a marker is an interrupted
// restore's, because the marker is only ever put into an empty directory.
//
// Its first line is what is restored, its second the PGDATA that it belongs
// to: that is how a tablespace's directory is known again. A restore in place
// puts it into a directory that has files, and adds deltaLine, so that only
// another one takes the directory over: a plain one would remove what is kept.
const markerFile = "walkeep.restoring"

const deltaLine = "in place"

// taking is how places are taken.
type taking struct {
	what  string // is restored
	link  string // of the place; "" is PGDATA
	delta bool
}

// place is a directory that is being restored into: PGDATA or a tablespace's.
type place struct {
	path   string
	root   *os.Root
	marker *os.File // held locked
	again  bool     // remains of an earlier restore were found, or what is restored over
	made   bool     // the directory was made by us
	marked bool     // there was a marker in it before
}

// openPlace takes a directory: makes it if it is not there, refuses it if it
// has files that are not an interrupted restore's, and puts the marker in. main
// is the PGDATA that a tablespace's directory belongs to, nil if this is
// PGDATA itself. Remains in a tablespace are only believed if PGDATA has some
// too: a marker there can have outlived a restore that was complete.
//
// Killed at any point, it leaves no directory, an empty one, or one with a
// marker in it: all of which it accepts.
func openPlace(path string, how *taking, main *place) (*place, error) {
	p := &place{path: path}
	if err := p.create(); err != nil {
		return nil, err
	}
	if err := p.take(how, main); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *place) take(how *taking, main *place) (err error) {
	if p.root, err = os.OpenRoot(p.path); err != nil {
		return fmt.Errorf("open %s: %w", p.path, err)
	}
	names, err := p.names()
	if err != nil {
		return err
	}
	pgdata, remains := p.path, true
	if main != nil {
		pgdata, remains = main.path, main.again
	}
	if p.again = len(names) > 0; !p.again {
		return p.mark(pgdata, how)
	}
	if err := p.checkServer(); err != nil {
		return err
	}
	if how.delta {
		err = p.checkOld(names, how.link, main)
	} else {
		err = p.checkRemains(names, pgdata, remains)
	}
	if err != nil {
		return err
	}
	return p.mark(pgdata, how)
}

func (p *place) create() error {
	if err := os.MkdirAll(filepath.Dir(p.path), 0o755); err != nil { //nolint:gosec // above PGDATA, as mkdir -p
		return fmt.Errorf("make the directory above %s: %w", p.path, err)
	}
	err := os.Mkdir(p.path, 0o700)
	if err == nil {
		p.made = true
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", p.path, err)
	}
	st, err := os.Stat(p.path)
	if err == nil && !st.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return fmt.Errorf("restore into %s: %w", p.path, err)
	}
	return nil
}

func (p *place) names() ([]string, error) {
	d, err := p.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p.path, err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p.path, err)
	}
	return names, nil
}

// checkRemains refuses a directory with files unless they are remains of a
// restore into pgdata. remains says that there can be any.
func (p *place) checkRemains(names []string, pgdata string, remains bool) error {
	b, err := p.root.ReadFile(markerFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !remains {
		return fmt.Errorf("%w: %s holds %s; restore into a directory that is empty or does not exist, or, over what is there, in place (--delta)", ErrNotEmpty, p.path, listSome(names))
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(p.path, markerFile), err)
	}
	// An empty or half marker was written right before a crash: then there is
	// nothing else, or else the directory is somebody's.
	lines := strings.Split(string(b), "\n")
	if len(lines) == 4 && lines[2] == deltaLine {
		return fmt.Errorf("%w: a restore in place was interrupted in %s: run it again in place (--delta), or remove the directory", ErrNotEmpty, p.path)
	}
	p.marked = true
	if len(names) > 1 && (len(lines) != 3 || lines[1] != pgdata) {
		return fmt.Errorf("%w: %s holds remains of a restore into another directory (%s)", ErrNotEmpty, p.path, strings.TrimSpace(string(b)))
	}
	// A crash right before the marker was to go leaves a complete directory.
	// The server writes this file when it starts, and no backup has it.
	if _, err := p.root.Lstat("postmaster.opts"); err == nil {
		return fmt.Errorf("%w: a server has been started in %s since the restore", ErrNotEmpty, p.path)
	}
	return nil
}

// mark writes and locks the marker.
func (p *place) mark(pgdata string, how *taking) error {
	path := filepath.Join(p.path, markerFile)
	f, err := p.root.OpenFile(markerFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	p.marker = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: another restore into %s is running", ErrNotEmpty, p.path)
	}
	text := how.what + "\n" + pgdata + "\n"
	if how.delta {
		text += deltaLine + "\n"
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("write %s: %w", path, noSpace(err))
	}
	if err := f.Truncate(int64(len(text))); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return p.syncDir()
}

// clear removes everything but the marker.
func (p *place) clear() error {
	names, err := p.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == markerFile {
			continue
		}
		if err := p.root.RemoveAll(n); err != nil {
			return fmt.Errorf("remove remains of an earlier restore from %s: %w", p.path, err)
		}
	}
	return nil
}

// leave gives a directory back in which nothing was written: empty, or gone if
// we made it.
func (p *place) leave() {
	if !p.marked {
		_ = p.root.Remove(markerFile)
	}
	if p.made {
		_ = os.Remove(p.path)
	}
	p.close()
}

// done removes the marker for good.
func (p *place) done() error {
	if err := p.root.Remove(markerFile); err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(p.path, markerFile), err)
	}
	return p.syncDir()
}

func (p *place) syncDir() error {
	d, err := p.root.Open(".")
	if err != nil {
		return fmt.Errorf("open %s: %w", p.path, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func (p *place) close() {
	if p.marker != nil {
		_ = p.marker.Close()
	}
	if p.root != nil {
		_ = p.root.Close()
	}
}

func listSome(names []string) string {
	const some = 3
	if len(names) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:some], ", "), len(names)-some)
	}
	return strings.Join(names, ", ")
}

// noSpace makes a full file system an ErrNoSpace.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
