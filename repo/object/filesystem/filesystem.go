// Package filesystem keeps objects as files below one directory, local or NFS:
// an [object.Store] whose key "a/b" is the file a/b. Anyone can read it with cp.
//
// # How a Put becomes whole, durable and visible
//
//  1. The body goes into a new file in the directory ".uploads." below the root,
//     a name that no key can have. Write-back starts while it grows, so that
//     there is little left to wait for in step 2.
//  2. fsync of the file: the content is durable under a name that nobody reads.
//  3. The directories of the key are made where they are missing, and each is
//     made durable in its parent (dirs.go).
//  4. A hard link gives the file its key. link fails when the name is taken, so
//     it is the create-if-absent, and of many writers one wins. A Put that may
//     overwrite goes on with a rename, under a lock (lock.go) when it compares
//     versions.
//  5. fsync of the directory: the name is durable. Puts that wait for the same
//     directory share one.
//  6. The name in ".uploads." goes.
//
// Killed before step 4, a Put leaves a file in ".uploads." that nobody lists or
// reads; a later Put removes it when it is a day old. Killed, or the machine
// lost, after step 4, the object is there, whole, or not at all.
//
// Between 4 and 6 the file has two names, and stays so if the process dies
// there. So who reads an object with more than one link knows that step 5 may
// not have happened, and does it himself before he says that the object exists:
// what was seen once does not vanish with the next power cut. (A repository
// copied with cp -l has two links everywhere; it pays with an fsync per look.)
// Overwriting has no such mark: a version seen before its Put returned may give
// way to the one before it.
//
// # Versions
//
// A version is inode, modification time and size. Every Put makes a new inode
// while the old one still exists, so two versions in a row always differ. An
// inode number can come back later, within the same tick of the kernel's coarse
// clock even, so each Put also replaces the part of the time below 10 ms with a
// random one: for two versions with equal size and inode to be mixed up they
// must be less than 10 ms apart and hit one chance in ten million. It needs a
// file system that keeps nanoseconds, as ext4, XFS, btrfs, ZFS and NFS from
// version 4 on such do.
//
// # What the file system must offer
//
// Hard links, atomic rename, case-sensitive names of 255 bytes, and locks (flock)
// that all nodes see if versions are compared from several. Links within the
// repository are not followed, and are not objects: an entry is an object if it
// is a regular file. The root itself may be reached through a link.
package filesystem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// Options say where the objects are.
type Options struct {
	// Path is the root directory. It must be absolute.
	Path string
	// Create makes the root directory, and those above it, if it is missing.
	// Without it a missing root is an error: more often than not it means that
	// something is not mounted.
	Create bool
	// FileMode and DirMode are the permissions of what is created, whatever the
	// umask. Default 0600 and 0700.
	FileMode, DirMode fs.FileMode
}

// Store is an object.Store on a file system. Make one with [New].
type Store struct {
	root     string
	fileMode uint32
	dirMode  uint32
	dirs     *dirs
	locking  chan struct{} // holds one token while this process wants the lock
	swept    sync.Once     // old uploads were looked for
	// listBatch is the constant of that name, but for tests.
	listBatch int
}

var _ object.Store = (*Store)(nil)

// uploads is where unfinished objects are: a name that CheckKey refuses.
const uploads = ".uploads."

// New opens the store at opts.Path. It does not write there yet, unless it has
// to create the root.
func New(opts Options) (*Store, error) {
	if !filepath.IsAbs(opts.Path) {
		return nil, fmt.Errorf("open repository directory %q: not an absolute path", opts.Path)
	}
	if opts.FileMode == 0 {
		opts.FileMode = 0o600
	}
	if opts.DirMode == 0 {
		opts.DirMode = 0o700
	}
	root := filepath.Clean(opts.Path)
	if opts.Create {
		if err := os.MkdirAll(root, opts.DirMode.Perm()); err != nil {
			return nil, fmt.Errorf("create repository directory: %w", err)
		}
	}
	s := &Store{
		root:      root,
		fileMode:  uint32(opts.FileMode.Perm()),
		dirMode:   uint32(opts.DirMode.Perm()),
		locking:   make(chan struct{}, 1),
		listBatch: listBatch,
	}
	s.dirs = newDirs(root, s.dirMode)
	d, err := s.dirs.acquire("") // fails now, not in the middle of a backup
	if err != nil {
		return nil, s.explain("open", "", err)
	}
	s.dirs.release(d)
	return s, nil
}

// String implements [object.Store].
func (s *Store) String() string { return "filesystem:" + s.root }

// Close implements [object.Store].
func (s *Store) Close() error { return s.dirs.close() }

// explain wraps an error with what was tried and where, and with what callers
// branch on.
func (s *Store) explain(verb, key string, err error) error {
	what := fmt.Sprintf("%s %s in %s", verb, key, s.root)
	if key == "" {
		what = fmt.Sprintf("%s repository directory %s", verb, s.root)
	}
	wrap := func(also error) error { return fmt.Errorf("%s: %w: %w", what, also, err) }
	switch {
	case isAny(err, unix.ENOSPC, unix.EDQUOT):
		return object.Permanent(wrap(errFull))
	case isAny(err, unix.EACCES, unix.EPERM, unix.EROFS):
		return wrap(object.ErrDenied)
	case errors.Is(err, errNoRoot):
		return fmt.Errorf("%s: %w", what, err)
	case isAny(err, unix.ENOENT) && verb != "put":
		return fmt.Errorf("%s: %w", what, object.ErrNotFound)
	case isAny(err, unix.ENOTDIR, unix.EISDIR, unix.ELOOP):
		return object.Permanent(wrap(errInTheWay))
	case isAny(err, unix.EFBIG, unix.ENAMETOOLONG, unix.EXDEV, unix.EMLINK):
		return object.Permanent(fmt.Errorf("%s: %w", what, err))
	case isAny(err, unix.ENOTSUP, unix.EOPNOTSUPP, unix.ENOSYS):
		return object.Permanent(wrap(errNoLinks))
	}
	return fmt.Errorf("%s: %w", what, err)
}

var (
	errFull     = errors.New("the file system of the repository is full")
	errNoRoot   = errors.New("the directory does not exist (not mounted, or not created yet)")
	errInTheWay = errors.New("a file, directory or link of that name is in the way")
	errNoLinks  = errors.New("the file system lacks hard links or locks, which a repository needs")
)

func isAny(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
