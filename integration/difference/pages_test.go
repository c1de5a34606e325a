package difference

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const pageSize = 8192

var mainFork = regexp.MustCompile(`^(global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(\.\d+)?$`)

// relationFiles are the main forks below a data directory, by path.
func relationFiles(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if mainFork.MatchString(rel) {
			if _, err := os.Stat(path + "_init"); err == nil {
				return nil // unlogged
			}
			files[rel], err = os.ReadFile(path)
		}
		return err
	})
	return files, err
}

// comparePages says where the relations of two data directories differ, but
// for what WAL does not carry.
func comparePages(a, b string) ([]string, error) {
	one, err := relationFiles(a)
	if err != nil {
		return nil, err
	}
	two, err := relationFiles(b)
	if err != nil {
		return nil, err
	}
	var differ []string
	for path := range two {
		if _, ok := one[path]; !ok && len(two[path]) > 0 {
			differ = append(differ, fmt.Sprintf("%s: only in %s", path, b))
		}
	}
	for path, x := range one {
		y, ok := two[path]
		if !ok && len(x) > 0 {
			differ = append(differ, fmt.Sprintf("%s: only in %s", path, a))
			continue
		}
		for n := 0; n*pageSize < max(len(x), len(y)); n++ {
			p, q := masked(pageOf(x, n)), masked(pageOf(y, n))
			// An LSN alone is no difference. A hint bit that is set while a checkpoint
			// writes the page logs an image and leaves the page's LSN (bufmgr.c,
			// MarkBufferDirtyHint), and pages of a GiST index that was built by sorting
			// get LSNs only where the index is replayed (gistbuild.c).
			if !bytes.Equal(p[8:], q[8:]) {
				at := 8
				for p[at] == q[at] {
					at++
				}
				differ = append(differ, fmt.Sprintf("%s: page %d at byte %d: LSN %x and %x, of %d and %d pages", path, n, at,
					lsnOf(p), lsnOf(q), len(x)/pageSize, len(y)/pageSize))
			}
		}
	}
	return differ, nil
}

func lsnOf(p []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(p))<<32 | uint64(binary.LittleEndian.Uint32(p[4:]))
}

// pageOf is a copy of a page; what is behind the end of a file is as good as
// zeroes, because a file can be extended without WAL.
func pageOf(b []byte, n int) []byte {
	p := make([]byte, pageSize)
	if n*pageSize < len(b) {
		copy(p, b[n*pageSize:])
	}
	return p
}

// masked removes from a page what differs between two servers that replayed
// the same WAL (bufmask.c): hint bits, flags of dead line pointers, checksum,
// the hole.
func masked(p []byte) []byte {
	lower, upper, special := u16(p[12:]), u16(p[14:]), u16(p[16:])
	if upper == 0 || lower < 24 || lower > upper || upper > special || special > pageSize {
		return p
	}
	if special == pageSize-8 && binary.LittleEndian.Uint32(p[special:]) == 0x1717 {
		// A sequence. WAL has values ahead of those in the page.
		clear(p[8:])
		return p
	}
	put16(p[8:], 0)              // checksum
	put16(p[10:], u16(p[10:])&4) // all but PD_ALL_VISIBLE
	put32(p[20:], 0)             // prune xid
	clear(p[lower:upper])
	heap := special == pageSize
	kept := make([]byte, pageSize) // what items hold; between them is what was there before
	for at := 24; at+4 <= lower; at += 4 {
		item := binary.LittleEndian.Uint32(p[at:])
		flags, off, length := item>>15&3, int(item&0x7fff), int(item>>17)
		if flags == 3 { // dead: with or without storage
			put32(p[at:], item&^(3<<15)|1<<15)
		}
		if heap && flags == 1 && length >= 23 && off+length <= pageSize {
			put16(p[off+20:], u16(p[off+20:])&^0x0F20) // and HEAP_COMBOCID
			put32(p[off+8:], 0)                        // command id
			copy(kept[off:], p[off:off+length])
		}
	}
	if heap {
		copy(p[upper:], kept[upper:])
	} else {
		clear(p[special:])
	}
	return p
}

func u16(b []byte) int { return int(binary.LittleEndian.Uint16(b)) }

func put16(b []byte, v int) { binary.LittleEndian.PutUint16(b, uint16(v)) }

func put32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

// short cuts a list for a message.
func short(list []string) string {
	const most = 20
	if len(list) > most {
		list = append(list[:most:most], fmt.Sprintf("and %d more", len(list)-most))
	}
	return strings.Join(list, "\n")
}
