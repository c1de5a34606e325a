package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"github.com/walkeep/walkeep/repo"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// piece is a part of a file that comes from one chunk.
type piece struct {
	index       int   // among the file's pieces, in the order of the file
	fileOffset  int64 // bytes
	chunkOffset int
	length      int
}

// output is one file that is being written, by any number of workers.
type output struct {
	dir   *dir
	entry repo.FileEntry // without chunks and extents
	owner *owners
	// late is told the CRC-32C of a file of which the manifest does not know it.
	late func(path string, crc uint32)
	// inPlace: the file is there already, and parts of it may stay.
	inPlace bool
	// zeroes: it is of a database that is left out, and gets its size only.
	zeroes bool

	// damaged: not all of it could be brought back.
	damaged atomic.Bool

	left atomic.Int32 // chunks that are not written yet
	end  atomic.Int64 // of what was written or reserved: the file's size so far
	crcs []pieceCRC   // each set once, by the worker that writes the piece

	mu     sync.Mutex // guards what follows
	file   *os.File
	direct bool
	cached *os.File // the same file, for small pieces; nil before the first
}

type pieceCRC struct {
	crc    uint32
	length int64
}

// directFrom is the size from which files are written past the page cache:
// the bytes will not be read again before other ones have pushed them out, and
// the copy costs more than the decompression.
const directFrom = 1 << 20

// directPiece is the size from which a piece of a file is written past the page
// cache. In a file of which pages changed since the full backup the pieces between
// them are small, and each would wait for the disk.
const directPiece = 512 << 10

// directAlign is what offsets, lengths and buffers of direct writes are
// multiples of.
const directAlign = 4096

func (o *output) where() string { return o.entry.Path }

// open makes the file at its first write.
func (o *output) open() (*os.File, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		return o.file, o.direct, nil
	}
	name, flags := path.Base(o.entry.Path), os.O_WRONLY|os.O_CREATE|os.O_EXCL
	if o.inPlace {
		flags = os.O_WRONLY
	}
	f, err := o.dir.root.OpenFile(name, flags, 0o600)
	if o.inPlace && errors.Is(err, fs.ErrPermission) {
		if err = o.dir.root.Chmod(name, 0o600); err == nil {
			f, err = o.dir.root.OpenFile(name, flags, 0)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("make file %s: %w", o.where(), noSpace(err))
	}
	o.file = f
	o.dir.opened.add(f)
	switch {
	case o.zeroes:
		if o.inPlace { // nothing of what was there stays
			if err := f.Truncate(0); err != nil {
				return nil, false, fmt.Errorf("empty file %s: %w", o.where(), err)
			}
		}
	case o.inPlace:
		o.direct = o.entry.Size >= directFrom && goDirect(f)
	case o.entry.Size >= directFrom:
		if err := reserve(f, o.entry.Size); err != nil {
			return nil, false, fmt.Errorf("reserve room for file %s: %w", o.where(), noSpace(err))
		}
		o.end.Store(o.entry.Size)
		o.direct = goDirect(f)
	}
	return f, o.direct, nil
}

// openCached opens the file once more, for writing through the page cache.
func (o *output) openCached() (*os.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cached != nil {
		return o.cached, nil
	}
	f, err := o.dir.root.OpenFile(path.Base(o.entry.Path), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open file %s: %w", o.where(), err)
	}
	o.cached = f
	o.dir.opened.add(f)
	return f, nil
}

// write puts a chunk's data where it belongs, and remembers the checksums of its
// pieces.
func (o *output) write(ctx context.Context, it *item, data []byte) error {
	for _, p := range it.pieces {
		o.sum(p.index, data[p.chunkOffset:p.chunkOffset+p.length])
	}
	for _, f := range it.fills {
		o.sum(f.piece.index, data[f.at:f.at+f.piece.length])
	}
	if it.spans != nil {
		for _, s := range it.spans {
			if err := o.writeSpan(s, data); err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range it.pieces {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := o.writeSpan(span{p.fileOffset, p.chunkOffset, p.length}, data); err != nil {
			return err
		}
	}
	return nil
}

func (o *output) sum(index int, piece []byte) {
	o.crcs[index] = pieceCRC{crc32.Checksum(piece, castagnoli), int64(len(piece))}
}

// writeSpan writes a part of a chunk. Zeroes are not written, but in place: a new
// file is as long as it will be, or gets so in finish, and what nobody wrote reads
// as zeroes.
func (o *output) writeSpan(s span, data []byte) error {
	part := data[s.chunkOffset : s.chunkOffset+s.length]
	skip := 0
	if !o.inPlace {
		if part, skip = trimZeroes(part); len(part) == 0 {
			return nil
		}
	}
	f, direct, err := o.open()
	if err == nil && direct && len(part) < directPiece {
		f, err = o.openCached()
		direct = false
	}
	if err != nil {
		return err
	}
	if err := writeAt(f, direct, part, s.fileOffset+int64(skip)); err != nil {
		return fmt.Errorf("write file %s: %w", o.where(), noSpace(err))
	}
	for to := s.fileOffset + int64(skip+len(part)); ; {
		if end := o.end.Load(); to <= end || o.end.CompareAndSwap(end, to) {
			return nil
		}
	}
}

// zeroRun is the grain in which zeroes are looked for, a page.
const zeroRun = 8192

var zeroes [zeroRun]byte

// trimZeroes cuts whole pages of zeroes off both ends, and says how many bytes
// it cut off the front.
func trimZeroes(b []byte) (rest []byte, front int) {
	for len(b) >= zeroRun && bytes.Equal(b[:zeroRun], zeroes[:]) {
		b, front = b[zeroRun:], front+zeroRun
	}
	for len(b) >= zeroRun {
		cut := (len(b) - 1) / zeroRun * zeroRun
		if !bytes.Equal(b[cut:], zeroes[:len(b)-cut]) {
			break
		}
		b = b[:cut]
	}
	if len(b) < zeroRun && len(b) > 0 && bytes.Equal(b, zeroes[:len(b)]) {
		return nil, front
	}
	return b, front
}

// finish ends a file whose last chunk is written: checks its checksum, sets
// its size, owner, mode and time.
func (o *output) finish() (err error) {
	defer o.dir.drop()
	f, _, err := o.open()
	if err != nil {
		return err
	}
	defer func() {
		o.dir.opened.remove(f)
		err = errors.Join(err, f.Close())
		if o.cached != nil {
			o.dir.opened.remove(o.cached)
			err = errors.Join(err, o.cached.Close())
		}
	}()
	var crc uint32
	for _, p := range o.crcs {
		crc = repo.CombineCRC(crc, p.crc, p.length)
	}
	if o.zeroes {
		crc = o.entry.CRC // of what nobody wrote
	}
	if o.entry.CRCUnknown {
		o.late(o.entry.Path, crc)
	} else if crc != o.entry.CRC && !o.damaged.Load() {
		return &fileDamage{path: o.where(), want: o.entry.CRC, got: crc}
	}
	if err := o.setSize(f); err != nil {
		return err
	}
	return dress(f, &o.entry, o.owner)
}

// setSize makes the file as long as it is to be: zeroes at the end were not
// written, and one that was there may have been longer.
func (o *output) setSize(f *os.File) error {
	if o.inPlace {
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("look at file %s: %w", o.where(), err)
		}
		o.end.Store(st.Size())
		if st.Mode().Perm() != 0o600 {
			if err := f.Chmod(0o600); err != nil { // what dress expects
				return fmt.Errorf("set mode of file %s: %w", o.where(), err)
			}
		}
	}
	if o.end.Load() == o.entry.Size || o.end.Load() > o.entry.Size && !o.inPlace {
		return nil
	}
	if err := f.Truncate(o.entry.Size); err != nil {
		return fmt.Errorf("set size of file %s: %w", o.where(), noSpace(err))
	}
	return nil
}

// dress gives a file its owner, mode and time.
func dress(f *os.File, e *repo.FileEntry, owners *owners) error {
	if uid, gid, ok := owners.of(e); ok {
		if err := f.Chown(uid, gid); err != nil {
			return fmt.Errorf("give away file %s: %w", e.Path, err)
		}
	}
	if mode := os.FileMode(e.Mode & 0o777); mode != 0o600 {
		if err := f.Chmod(mode); err != nil {
			return fmt.Errorf("set mode of file %s: %w", e.Path, err)
		}
	}
	if err := setTime(f, e.MTime); err != nil {
		return fmt.Errorf("set time of file %s: %w", e.Path, err)
	}
	return nil
}

// fileDamage says that the chunks were right but the file made of them is not.
type fileDamage struct {
	path      string
	want, got uint32
}

func (e *fileDamage) Error() string {
	return fmt.Sprintf("file %s has CRC-32C %08x, the manifest says %08x", e.path, e.got, e.want)
}
