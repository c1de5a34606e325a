package repo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxPath is the longest path or link target of a manifest in bytes, PATH_MAX.
const maxPath = 4096

// ComparePaths orders paths the way manifests do: depth first, the names of
// each directory in byte order. It returns -1, 0 or 1.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			switch {
			case a[i] == '/': // a's name ends here
				return -1
			case b[i] == '/':
				return 1
			case a[i] < b[i]:
				return -1
			}
			return 1
		}
	}
	switch {
	case len(a) < len(b):
		return -1
	case len(a) > len(b):
		return 1
	}
	return 0
}

// LabelFile is the first of the files that come after all others in a manifest.
const LabelFile = "backup_label"

// The files that come after all others, in this order.
var lastFiles = [...]string{LabelFile, "tablespace_map", "global/pg_control"}

const (
	rootPath        = "."
	tablespaceLinks = "pg_tblspc/"
)

// walkRules checks the paths of a manifest as they come, in memory bounded by
// the depth of the tree. What passes cannot lead a restore out of its target:
// every path is clean, its parent was listed as a directory (or is a declared
// tablespace), no path comes twice, and links lead out only as tablespaces.
type walkRules struct {
	previous string
	any      bool
	parents  []string // directories that the next path may be in, outermost first
	global   bool     // the directory "global" was listed
	last     int      // how many of lastFiles are past; 0: none yet
	// locations of tablespaces by OID: declared by the header for a reader,
	// collected for a writer.
	declared  map[uint32]string
	collected map[uint32]string
}

func (w *walkRules) check(f *FileEntry) error {
	if err := checkPath(f.Path); err != nil {
		return err
	}
	if err := w.checkOrder(f); err != nil {
		return err
	}
	if f.Type != Symlink {
		if f.Link != "" {
			return errors.New("a link target on what is not a link")
		}
	} else if err := w.checkLink(f); err != nil {
		return err
	}
	if f.Type == Directory && f.Path != rootPath || f.Type == Symlink && isTablespace(f.Path) {
		w.parents = append(w.parents, f.Path)
	}
	if f.Path == "global" && f.Type == Directory {
		w.global = true
	}
	w.previous, w.any = f.Path, true
	return nil
}

func checkPath(p string) error {
	if p == rootPath {
		return nil
	}
	if p == "" || len(p) > maxPath || strings.IndexByte(p, 0) >= 0 {
		return errors.New("an impossible path")
	}
	for start, i := 0, 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		switch p[start:i] {
		case "", ".", "..":
			return errors.New("a path that is not clean and relative")
		}
		start = i + 1
	}
	return nil
}

func (w *walkRules) checkOrder(f *FileEntry) error {
	for i, name := range lastFiles {
		if f.Path == name {
			if i < w.last || f.Type != RegularFile || i == 2 && !w.global {
				return errors.New("not where it belongs")
			}
			w.last = i + 1
			return nil
		}
	}
	if w.last > 0 {
		return errors.New("it comes after the files that must be last")
	}
	if f.Path == rootPath {
		if w.any || f.Type != Directory {
			return errors.New("the root must come first and be a directory")
		}
		return nil
	}
	if w.any && w.previous != rootPath && ComparePaths(w.previous, f.Path) >= 0 {
		return fmt.Errorf("it does not come after %q", w.previous)
	}
	parent := ""
	if i := strings.LastIndexByte(f.Path, '/'); i >= 0 {
		parent = f.Path[:i]
	}
	for len(w.parents) > 0 && w.parents[len(w.parents)-1] != parent {
		w.parents = w.parents[:len(w.parents)-1]
	}
	if parent != "" && len(w.parents) == 0 {
		return errors.New("it is in a directory that is not listed")
	}
	return nil
}

// isTablespace reports whether p is pg_tblspc/<oid>.
func isTablespace(p string) bool {
	_, ok := tablespaceOID(p)
	return ok
}

func tablespaceOID(p string) (uint32, bool) {
	s, ok := strings.CutPrefix(p, tablespaceLinks)
	if !ok {
		return 0, false
	}
	oid, err := strconv.ParseUint(s, 10, 32)
	return uint32(oid), err == nil && oid > 0 && strconv.FormatUint(oid, 10) == s
}

func (w *walkRules) checkLink(f *FileEntry) error {
	if f.Link == "" || len(f.Link) > maxPath || strings.IndexByte(f.Link, 0) >= 0 {
		return errors.New("an impossible link target")
	}
	oid, ok := tablespaceOID(f.Path)
	if !ok {
		if err := checkPath(f.Link); err != nil || f.Link == rootPath {
			return fmt.Errorf("a link to %q, which may lead out of the data directory", f.Link)
		}
		return nil
	}
	if f.Link[0] != '/' || f.Link != "/" && checkPath(f.Link[1:]) != nil || f.Link == "/" {
		return fmt.Errorf("a tablespace at %q, which is not a clean absolute path", f.Link)
	}
	if w.declared == nil {
		w.collected[oid] = f.Link
	} else if w.declared[oid] != f.Link {
		return fmt.Errorf("a tablespace at %q that the header does not declare", f.Link)
	}
	return nil
}

// checkContent checks how the chunks of a regular file make it up. What the
// packs have room for is checked by the caller.
func checkContent(f *FileEntry) error {
	if f.Mode > 0o7777 || f.UID < 0 || f.GID < 0 || f.UID > 1<<32-1 || f.GID > 1<<32-1 {
		return errors.New("an impossible mode or owner")
	}
	if f.Type != RegularFile {
		if f.Size != 0 || len(f.Chunks)+len(f.Extents)+len(f.BadPages) != 0 || f.CRC != 0 || f.CRCUnknown {
			return errors.New("content on what is not a file")
		}
		return nil
	}
	if f.CRCUnknown && f.CRC != 0 {
		return errors.New("a CRC-32C that is said to be unknown")
	}
	var sum int64
	for i := range f.Chunks {
		c := &f.Chunks[i]
		if c.Plain < 1 || c.Plain > MaxChunk || c.Stored < 1 || c.Stored > maxStoredChunk || c.Offset < 0 {
			return fmt.Errorf("chunk %d has an impossible length", i)
		}
		sum += int64(c.Plain)
	}
	if f.Extents != nil {
		sum = 0
		for i, x := range f.Extents {
			if x.FileOffset != sum || x.Length < 1 || x.Chunk < 0 || x.Chunk >= len(f.Chunks) ||
				x.ChunkOffset < 0 || x.Length > int64(f.Chunks[x.Chunk].Plain)-x.ChunkOffset {
				return fmt.Errorf("extent %d does not fit", i)
			}
			sum += x.Length
		}
	}
	if sum != f.Size {
		return fmt.Errorf("its parts make up %d bytes, not %d", sum, f.Size)
	}
	for i := 1; i < len(f.BadPages); i++ {
		if f.BadPages[i-1] >= f.BadPages[i] {
			return errors.New("bad pages out of order")
		}
	}
	return nil
}
