package filesystem

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// listBatch is how many names of one directory are held at a time. A directory
// with more is read once per batch.
const listBatch = 1 << 15

// List implements [object.Reader].
//
// Keys come in the byte order of whole keys, which a plain walk does not give:
// '-' and '.' sort before '/', so "a-b" and "a.b" come before all of "a/…",
// although "a" sorts before both. Sorting each directory with a '/' after the
// names of its directories is enough: then names compare as the keys below them
// do, since no name is a key and the directory of others at once.
//
// Memory is bounded by the depth, not by the number of keys: of a large directory
// only the smallest names after the last one yielded are kept at a time.
func (s *Store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	if err := ctx.Err(); err != nil {
		return s.explain("list", prefix, err)
	}
	path, _ := split(prefix)
	if path == "" && strings.HasPrefix(prefix, "/") || path != "" && object.CheckKey(path) != nil {
		return nil // no key has such a beginning, and ".." must not be opened
	}
	dir, err := s.openDir(path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return s.explain("list", prefix, err)
	}
	defer dir.Close() //nolint:errcheck // read only
	w := walk{store: s, ctx: ctx, prefix: prefix, after: opts.After, namesOnly: opts.NamesOnly, fn: fn, batch: s.listBatch}
	if path != "" {
		path += "/"
	}
	err = w.dir(dir, path)
	if err == nil || w.stopped {
		return err
	}
	return s.explain("list", prefix, err)
}

// walk is one List.
type walk struct {
	store         *Store
	ctx           context.Context
	prefix, after string
	namesOnly     bool
	fn            func(object.Info) error
	batch         int
	stopped       bool // fn failed
}

// dir yields what lies in an open directory. path is its key and a '/', or "".
func (w *walk) dir(dir *os.File, path string) error {
	last := ""
	for {
		batch, err := w.next(dir, path, last)
		if err != nil {
			return err
		}
		asNames := w.namesOnly && !w.store.unsettled()
		for _, name := range batch {
			if asNames && !strings.HasSuffix(name, "/") {
				err = w.name(path + name)
			} else {
				err = w.entry(dir, path, name)
			}
			if err != nil {
				return err
			}
		}
		if len(batch) < w.batch {
			return nil
		}
		last = batch[len(batch)-1]
	}
}

// next returns the smallest names in dir that come after last and may lead to
// wanted keys, in order. Names of directories end in '/'.
func (w *walk) next(dir *os.File, path, last string) ([]string, error) {
	// Another descriptor begins at the beginning again.
	again, err := openDirAt(dir, ".")
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // removed
	}
	if err != nil {
		return nil, err
	}
	defer again.Close() //nolint:errcheck // read only
	var smallest names
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		entries, err := again.ReadDir(1000)
		for _, e := range entries {
			name := e.Name()
			if e.IsDir() {
				name += "/"
			} else if !e.Type().IsRegular() {
				continue
			}
			if name <= last || !w.wanted(path+name) {
				continue
			}
			smallest.add(name, w.batch)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(smallest)
	return smallest, nil
}

// wanted reports whether a key, or for a path with '/' at its end any key below
// it, can be among those that are asked for.
func (w *walk) wanted(path string) bool {
	below := strings.HasSuffix(path, "/")
	switch {
	case path == uploads+"/":
		return false
	case !strings.HasPrefix(path, w.prefix) && !(below && strings.HasPrefix(w.prefix, path)):
		return false
	}
	return path > w.after || below && strings.HasPrefix(w.after, path)
}

// entry yields one object, or what lies in one directory.
func (w *walk) entry(dir *os.File, path, name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if name, isDir := strings.CutSuffix(name, "/"); isDir {
		below, err := openDirAt(dir, name)
		if isAny(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP) {
			return nil // removed, or replaced by something else
		}
		if err != nil {
			return err
		}
		defer below.Close() //nolint:errcheck // read only
		return w.dir(below, path+name+"/")
	}
	if object.CheckKey(path+name) != nil {
		return nil // not ours: nobody could get or delete it
	}
	st, err := stat(dir, name)
	if errors.Is(err, unix.ENOENT) || err == nil && !isRegular(st) {
		return nil
	}
	if err == nil {
		err = settle(dir, st)
	}
	if err != nil {
		return err
	}
	err = w.fn(info(path+name, st))
	w.stopped = err != nil
	return err
}

// name yields one object of which nothing else is asked.
func (w *walk) name(key string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if object.CheckKey(key) != nil {
		return nil // as in entry
	}
	err := w.fn(object.Info{Key: key})
	w.stopped = err != nil
	return err
}

// unsettled reports whether any object that was seen before the call may be one
// whose name is not durable yet: there is an upload that has a second name. It
// has it from before the object can be seen until its name is durable (see the
// package comment), so one look here stands for one at each object. The files are
// opened because NFS shows then, and not sooner, what other hosts did to them.
func (s *Store) unsettled() bool {
	dir, err := s.openDir(uploads)
	if err != nil {
		return !errors.Is(err, unix.ENOENT) // nothing was ever put here
	}
	defer dir.Close() //nolint:errcheck // read only
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			if linked(dir, name) {
				return true
			}
		}
		if err != nil {
			return err != io.EOF
		}
	}
}

// linked reports whether a file has a second name, for all that can be seen.
func linked(dir *os.File, name string) bool {
	f, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) {
		return false // removed by its Put, which came to its end
	}
	if err != nil {
		return true
	}
	defer f.Close() //nolint:errcheck // read only
	st, err := statOpen(f)
	return err != nil || isRegular(st) && st.Nlink > 1
}

// names is a heap with the largest name on top.
type names []string

func (n names) Len() int           { return len(n) }
func (n names) Less(i, j int) bool { return cmp.Less(n[j], n[i]) }
func (n names) Swap(i, j int)      { n[i], n[j] = n[j], n[i] }
func (n *names) Push(x any)        { *n = append(*n, x.(string)) }
func (n *names) Pop() any          { panic("never called") }

// add keeps the smallest max names. It is a plain slice until it is full.
func (n *names) add(name string, max int) {
	switch {
	case len(*n) < max-1:
		*n = append(*n, name)
	case len(*n) == max-1:
		*n = append(*n, name)
		heap.Init(n)
	case name < (*n)[0]:
		(*n)[0] = name
		heap.Fix(n, 0)
	}
}
