package backup

import (
	"slices"
	"sort"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// parentFile is a file as the parent backup in one repository has it.
type parentFile struct {
	entry   repo.FileEntry // with slices of its own
	extents []repo.Extent  // never nil
	packs   map[int]repo.PackRef
	stale   []bool // by chunk: what is still used of it is to be stored again
}

const (
	// staleShare bounds how much a restore reads in vain: once less than one
	// staleShare-th of a chunk is in use, that rest is stored again. So what is
	// stored again is at most a third of what has changed.
	staleShare = 4
	// mostPieces is in how many chunks a small file, whose chunks are shared
	// with others, may lie before it is stored again as one piece.
	mostPieces = 8
)

func newParentFile(f repo.FileEntry, packs map[int]repo.PackRef) *parentFile {
	f.Chunks, f.BadPages = slices.Clone(f.Chunks), slices.Clone(f.BadPages)
	p := &parentFile{entry: f, packs: packs, extents: slices.Clone(f.Extents)}
	if f.Extents == nil {
		var at int64
		for i, c := range f.Chunks {
			p.extents = append(p.extents, repo.Extent{FileOffset: at, Length: int64(c.Plain), Chunk: i})
			at += int64(c.Plain)
		}
	}
	p.entry.Extents = nil
	p.judge()
	return p
}

// judge finds the chunks that are worn out.
func (p *parentFile) judge() {
	p.stale = make([]bool, len(p.entry.Chunks))
	if p.entry.Size <= chunkSize {
		if len(p.entry.Chunks) > mostPieces {
			for i := range p.stale {
				p.stale[i] = true
			}
		}
		return
	}
	live := make([]int64, len(p.entry.Chunks))
	for _, x := range p.extents {
		live[x.Chunk] += x.Length
	}
	for i, c := range p.entry.Chunks {
		p.stale[i] = live[i]*staleShare < int64(c.Plain)
	}
}

// find is the index of the extent that holds the byte at off, which is inside
// of the file.
func (p *parentFile) find(off int64) int {
	return sort.Search(len(p.extents), func(i int) bool {
		return p.extents[i].FileOffset+p.extents[i].Length > off
	})
}

// has reports whether a page can be taken from the parent, if it has not
// changed.
func (p *parentFile) has(page int64) bool {
	off := page * pg.PageSize
	if off+pg.PageSize > p.entry.Size {
		return false
	}
	for i := p.find(off); i < len(p.extents) && p.extents[i].FileOffset < off+pg.PageSize; i++ {
		if p.stale[p.extents[i].Chunk] {
			return false
		}
	}
	_, bad := slices.BinarySearch(p.entry.BadPages, uint32(page))
	return !bad
}

// intact reports whether the whole file can be taken from the parent, if it
// has not changed.
func (p *parentFile) intact() bool {
	return len(p.entry.BadPages) == 0 && !slices.Contains(p.stale, true)
}

// parts appends where the bytes [off, off+n) are.
func (p *parentFile) parts(list []part, off, n int64) []part {
	for i := p.find(off); n > 0; i++ {
		x := p.extents[i]
		skip := off - x.FileOffset
		take := min(n, x.Length-skip)
		list = appendPart(list, part{parent: x.Chunk, off: x.ChunkOffset + skip, length: take})
		off, n = off+take, n-take
	}
	return list
}

// part is a piece of a file that comes from one chunk.
type part struct {
	own    *ownChunk // stored by this backup; nil: one of the parent's
	parent int       // index among the chunks of the parent's file
	off    int64     // in the chunk's data
	length int64
}

// appendPart adds a part, as one with the last if it goes on right behind it.
func appendPart(list []part, p part) []part {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.own == p.own && last.parent == p.parent && last.off+last.length == p.off {
			last.length += p.length
			return list
		}
	}
	return append(list, p)
}

// ownChunk is a chunk of this backup, once it is stored.
type ownChunk struct {
	at []repo.Chunk // by target; those that it was not stored for stay empty
}
