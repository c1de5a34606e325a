package restore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/walkeep/walkeep/repo"
)

// compared is a file that is there already, and what the backup has of it.
type compared struct {
	out   *output
	items []item
}

// comparer reads files that are there and finds out which of the backup's
// chunks they lack. A chunk is there if its XXH3-128 is that of the bytes in
// its place. Of some chunks a file has only a part (extents of an incremental
// backup): there is no digest of that part, so these count as there only if the
// whole file has the right size and CRC-32C, and all other chunks are there. (Then
// an accidental difference would pass with a probability of 2^-32.)
type comparer struct {
	progress Progress
	buf      []byte
}

func newComparer(r *run) *comparer {
	return &comparer{progress: r.opts.Progress, buf: make([]byte, repo.MaxChunk)}
}

// missing are the items that the file lacks. The others are entered into the
// output as if they had been written.
func (c *comparer) missing(ctx context.Context, out *output, items []item) (lacking []item, err error) {
	f, size, err := out.openOld()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var parts []item
	var there int64
	for _, it := range items {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		whole, same, err := c.same(f, &it)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read file %s: %w", out.where(), err)
		case !whole:
			parts = append(parts, it)
		case !same:
			lacking = append(lacking, it)
		default:
			there += it.bytes()
		}
	}
	if len(parts) > 0 {
		if len(lacking) > 0 || out.entry.CRCUnknown || size != out.entry.Size || !out.crcMatches() {
			lacking = append(lacking, parts...)
		} else {
			for i := range parts {
				there += parts[i].bytes()
			}
		}
	}
	c.progress.Add(there)
	return lacking, nil
}

// same compares what the file has in the places of one chunk, and remembers
// the checksums of the pieces. whole is false if they are not the whole chunk.
func (c *comparer) same(f *os.File, it *item) (whole, same bool, err error) {
	data := c.buf[:it.chunk.Plain]
	for _, p := range it.pieces {
		part := data[p.chunkOffset : p.chunkOffset+p.length]
		n, err := f.ReadAt(part, p.fileOffset)
		if n < len(part) {
			// Behind the end of the file. That it may read as zeroes there
			// does not count: then it is not as long as it should be.
			clear(part[n:])
			if err != nil && !errors.Is(err, io.EOF) {
				return false, false, err
			}
			return covers(it), false, nil
		}
		it.out.crcs[p.index] = pieceCRC{crc32.Checksum(part, castagnoli), int64(p.length)}
	}
	if !covers(it) {
		return false, false, nil
	}
	return true, xxh3.Hash128(data).Bytes() == it.chunk.XXH3, nil
}

// covers reports whether the pieces of an item are the whole chunk, each byte
// once.
func covers(it *item) bool {
	if len(it.pieces) == 1 {
		return it.pieces[0].chunkOffset == 0 && it.pieces[0].length == it.chunk.Plain
	}
	pieces := slices.Clone(it.pieces)
	slices.SortFunc(pieces, func(a, b piece) int { return a.chunkOffset - b.chunkOffset })
	at := 0
	for _, p := range pieces {
		if p.chunkOffset != at {
			return false
		}
		at += p.length
	}
	return at == it.chunk.Plain
}

func (it *item) bytes() (n int64) {
	for _, p := range it.pieces {
		n += int64(p.length)
	}
	for _, f := range it.fills {
		n += int64(f.piece.length)
	}
	return n
}

// openOld opens a file that is there for reading, and says how long it is.
func (o *output) openOld() (*os.File, int64, error) {
	name := path.Base(o.entry.Path)
	f, err := o.dir.root.OpenFile(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrPermission) {
		if err = o.dir.root.Chmod(name, 0o600); err == nil {
			f, err = o.dir.root.OpenFile(name, os.O_RDONLY, 0)
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open file %s: %w", o.where(), err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("look at file %s: %w", o.where(), err), f.Close())
	}
	return f, st.Size(), nil
}

// crcMatches combines the checksums of all pieces.
func (o *output) crcMatches() bool {
	var crc uint32
	var n int64
	for _, p := range o.crcs {
		crc, n = repo.CombineCRC(crc, p.crc, p.length), n+p.length
	}
	return crc == o.entry.CRC && n == o.entry.Size
}

// isThere reports whether the file of an entry is in the directory. After the
// sweep it is a regular file then.
func (d *dir) isThere(name string) (bool, error) {
	_, err := d.root.Lstat(name)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("look at %s: %w", name, err)
}

// intake is a batcher that many goroutines may use.
type intake struct {
	mu sync.Mutex // guards b
	b  *batcher
}

func (in *intake) add(items ...item) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, it := range items {
		if err := in.b.add(it); err != nil {
			return err
		}
	}
	return nil
}

func (in *intake) addEmpty(o *output) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.b.addEmpty(o)
}

// compare works off files that are there, until there are no more: what they
// lack is to be fetched.
func (r *run) compare(ctx context.Context, files <-chan compared, in *intake) error {
	c := newComparer(r)
	for f := range files {
		lacking, err := c.missing(ctx, f.out, f.items)
		if err != nil {
			return err
		}
		// Before others are handed out: whoever comes to zero ends the file.
		left := f.out.left.Add(int32(len(lacking) - len(f.items)))
		if left > 0 {
			err = in.add(lacking...)
		} else {
			err = r.fileDone(f.out)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
