package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object"
)

// Put implements [object.Store]. The package comment has its steps and what a
// crash leaves after each.
func (s *Store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	if err := object.CheckPut(key, opts); err != nil {
		return object.Info{}, err
	}
	got, err := s.put(ctx, key, body, opts)
	if err != nil {
		return object.Info{}, s.explain("put", key, err)
	}
	return got, nil
}

func (s *Store) put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	if err := s.foreseeable(ctx, key, opts); err != nil {
		return object.Info{}, err
	}
	up, err := s.newUpload()
	if err != nil {
		return object.Info{}, err
	}
	defer up.discard()
	// The directories are synced beside the body, which takes as long.
	path, _ := split(key)
	warmed := s.dirs.warm(path)
	defer warmed()
	if err := up.fill(ctx, object.Exactly(body, opts.Size)); err != nil {
		return object.Info{}, err
	}
	st, err := up.finish()
	if err != nil {
		return object.Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return object.Info{}, err
	}
	warmed()
	return info(key, st), s.publish(ctx, key, up, opts)
}

// foreseeable reports a condition that fails already, before the body is read.
func (s *Store) foreseeable(ctx context.Context, key string, opts object.PutOptions) error {
	if !opts.IfAbsent && opts.IfMatch == "" {
		return ctx.Err()
	}
	now, err := s.look(ctx, key)
	switch {
	case errors.Is(err, unix.ENOENT):
		if opts.IfMatch != "" {
			return object.ErrChanged
		}
		return nil
	case err != nil:
		return err
	case opts.IfAbsent:
		return object.ErrExists
	case now.Version != opts.IfMatch:
		return object.ErrChanged
	}
	return nil
}

// publish gives a finished upload its key (steps 3 to 6).
func (s *Store) publish(ctx context.Context, key string, up *upload, opts object.PutOptions) error {
	path, name := split(key)
	return s.dirs.with(path, func(d *dir) error {
		if opts.IfMatch == "" {
			err := up.link(d, name)
			if err == nil {
				return d.sync()
			}
			if !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("link: %w", err)
			}
		}
		if !opts.IfAbsent {
			if err := s.replace(ctx, d, name, up, opts.IfMatch); err != nil {
				return err
			}
			return d.sync()
		}
		// Lost the race. The winner may still be about to sync, or dead.
		if err := d.sync(); err != nil {
			return err
		}
		return object.ErrExists
	})
}

// replace renames the upload over the key, which must be at the given version if
// that is not empty. The lock keeps every other replace and Delete out between
// the comparison and the rename.
func (s *Store) replace(ctx context.Context, d *dir, name string, up *upload, version string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("lock the repository: %w", err)
	}
	defer unlock()
	if version != "" {
		st, err := stat(d.File, name)
		switch {
		case errors.Is(err, unix.ENOENT):
			return object.ErrChanged
		case err != nil:
			return err
		case !isRegular(st) || info("", st).Version != version:
			return object.ErrChanged
		}
	}
	err = again(func() error { return unix.Renameat(int(up.dir.Fd()), up.name, int(d.Fd()), name) })
	if err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	return nil
}

// upload is an object on its way: a file in the uploads directory, which it
// holds in use.
type upload struct {
	store *Store
	dir   *dir
	name  string
	file  *os.File
	inode uint64
}

// newUpload makes an empty file for a Put. Discard it in any case.
func (s *Store) newUpload() (*upload, error) {
	up := &upload{store: s}
	err := s.dirs.with(uploads, func(d *dir) error {
		for {
			up.name = strconv.FormatUint(rand.Uint64(), 36)
			f, err := openat(d.File, up.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, s.fileMode)
			if errors.Is(err, unix.EEXIST) {
				continue
			}
			if err != nil {
				return err
			}
			up.file = f
			up.dir = s.dirs.keep(d)
			return chmod(f, s.fileMode)
		}
	})
	if err != nil {
		up.discard()
		return nil, err
	}
	s.swept.Do(func() { sweep(up.dir.File, up.file) })
	return up, nil
}

const (
	// bufferSize is the size of a write to the file. Bodies often yield less at
	// a time.
	bufferSize = 1 << 20
	// writeBack is how many bytes are written before the kernel is asked to
	// begin with them. Larger than a write so that it can lay them out well,
	// far smaller than a pack so that the disk is never idle.
	//
	// What was begun with before is waited for then, and taken out of the page
	// cache: nobody reads a large object soon, while what it would push out of the
	// cache is the database's, on whose machine backups are taken. And pages that
	// are used again and again are cheap, while a virtual machine's host has to find
	// each new one: a sixth of a backup's processor time where this was seen.
	writeBack = 4 << 20
	// keep is the size up to which an object stays in the page cache: summaries,
	// manifests and history files are read again, segments and packs rarely.
	keep = 1 << 20
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// fill writes the body to the file (step 1).
func (u *upload) fill(ctx context.Context, body io.Reader) error {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	var written, begun, gone int64
	for {
		n, err := fillBuffer(ctx, buffer[:], body)
		if n > 0 {
			if _, err := u.file.Write(buffer[:n]); err != nil {
				return err
			}
			written += int64(n)
		}
		if written-begun >= writeBack {
			startWriteBack(u.file, begun, written-begun)
			if begun > gone { // a length of 0 would be all
				if err := awaitWriteBack(u.file, gone, begun-gone); err != nil {
					return err
				}
				letGo(u.file, gone, begun-gone)
			}
			gone, begun = begun, written
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
	}
}

// fillBuffer reads until the buffer is full or the body fails or ends. It is not
// io.ReadFull, whose ErrUnexpectedEOF cannot be told from one of the body.
func fillBuffer(ctx context.Context, buffer []byte, body io.Reader) (int, error) {
	n := 0
	for n < len(buffer) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		m, err := body.Read(buffer[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// finish makes the file unique and durable, and closes it (step 2).
func (u *upload) finish() (unix.Stat_t, error) {
	st, err := statOpen(u.file)
	if err != nil {
		return st, err
	}
	// The time of the file system's own clock, but for the part that makes the
	// version unique. See the package comment.
	const coarse = 10 * time.Millisecond
	modified := time.Unix(st.Mtim.Unix()).Truncate(coarse).Add(rand.N(coarse))
	times := []unix.Timespec{unix.NsecToTimespec(modified.UnixNano()), unix.NsecToTimespec(modified.UnixNano())}
	err = again(func() error { return unix.UtimesNanoAt(int(u.dir.Fd()), u.name, times, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return st, fmt.Errorf("set the time: %w", err)
	}
	if err := u.file.Sync(); err != nil {
		return st, err
	}
	if st.Size > keep { // what fill did not let go of
		letGo(u.file, 0, 0)
	}
	st, err = statOpen(u.file) // with the time as the file system keeps it
	u.inode = uint64(st.Ino)
	if err := errors.Join(err, u.file.Close()); err != nil {
		return st, err
	}
	u.file = nil
	return st, nil
}

// link gives the file the name in d, unless that is taken: EEXIST.
func (u *upload) link(d *dir, name string) error {
	err := again(func() error { return unix.Linkat(int(u.dir.Fd()), u.name, int(d.Fd()), name, 0) })
	if err == nil {
		return nil
	}
	// NFS may have done it, lost the answer, asked again, and been told that the
	// name exists. So look whose it is.
	if st, statErr := stat(d.File, name); statErr == nil && uint64(st.Ino) == u.inode {
		return nil
	}
	return err
}

// discard removes the name in the uploads directory (step 6, and what is left
// when any step fails).
func (u *upload) discard() {
	if u.file != nil {
		_ = u.file.Close()
	}
	if u.dir == nil {
		return
	}
	_ = unlink(u.dir.File, u.name) // gone after a rename; else it is swept one day
	u.store.dirs.release(u.dir)
}

// abandonedAfter is the age at which an upload that was not written to belongs
// to a dead process. Longer than any pause of a live one.
const abandonedAfter = 24 * time.Hour

// sweep removes what dead processes left in the uploads directory, judged by the
// clock of the file system, which has just set the time of fresh. One with a
// second name (killed between steps 4 and 6) loses its mark of not being durable
// here; a day later the kernel has long made it so.
func sweep(uploads, fresh *os.File) {
	now, err := statOpen(fresh)
	if err != nil {
		return
	}
	// Another descriptor, because a directory's position is that of the
	// descriptor.
	dir, err := openDirAt(uploads, ".")
	if err != nil {
		return
	}
	defer dir.Close() //nolint:errcheck // read only
	limit := time.Unix(now.Mtim.Unix()).Add(-abandonedAfter)
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			st, err := stat(dir, name)
			if err == nil && isRegular(st) && time.Unix(st.Mtim.Unix()).Before(limit) && !strings.HasPrefix(name, lockName) {
				_ = unlink(dir, name)
			}
		}
		if err != nil {
			return
		}
	}
}
