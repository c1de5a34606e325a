package repo

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
)

// largestFiles is how many files Contents names.
const largestFiles = 10

// Contents is what the manifest of a backup says, summed up: for people, and
// without reading any data.
type Contents struct {
	DataChecksums bool              `json:"data_checksums"`
	PGData        string            `json:"pgdata,omitempty"` // data directory of the server
	Directories   int64             `json:"directories"`
	Links         int64             `json:"links"` // symbolic links
	Tablespaces   []TablespaceUsage `json:"tablespaces"`
	// Databases, the largest first.
	Databases []DatabaseUsage `json:"databases"`
	// Largest are the largest files, at most ten.
	Largest []FileUsage `json:"largest_files"`
	// Detect is how changes were found, by way of detecting them.
	Detect   []DetectUsage `json:"detect"`
	BadPages []BadPages    `json:"bad_pages"`
}

// TablespaceUsage is all of one tablespace besides pg_default and pg_global.
type TablespaceUsage struct {
	OID   uint32 `json:"oid"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// DatabaseUsage is all of one database, in every tablespace. The manifest does
// not know its name.
type DatabaseUsage struct {
	OID   uint32 `json:"oid"`
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
}

// FileUsage is one file.
type FileUsage struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// DetectUsage is how much of a backup was found to be changed, or not, by one
// way of detecting that.
type DetectUsage struct {
	By    string `json:"by"` // summaries, changes, scan, whole, …
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
	// Own is how many of the bytes this backup stored itself; the others are
	// in packs of earlier ones.
	Own int64 `json:"own"`
}

// BadPages are the pages of a file whose checksum is wrong on the server too.
type BadPages struct {
	Path  string   `json:"path"`
	Pages []uint32 `json:"pages"`
}

// Contents reads a backup's manifest from beginning to end, in constant memory.
// each, which may be nil, is called for every regular file, with how many of
// its bytes this backup stored itself.
func (e *Epoch) Contents(ctx context.Context, s Summary, each func(f FileEntry, own int64)) (c Contents, err error) {
	m, err := e.OpenManifest(ctx, s)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	h := m.Header()
	c = Contents{
		DataChecksums: h.DataChecksums, PGData: h.PGData,
		Tablespaces: []TablespaceUsage{}, Databases: []DatabaseUsage{}, Largest: []FileUsage{}, BadPages: []BadPages{}, Detect: []DetectUsage{},
	}
	u := usage{tablespaces: map[uint32]int64{}, databases: map[uint32]*DatabaseUsage{}, own: map[int]bool{}, each: each}
	for id, p := range m.Packs() {
		u.own[id] = p.Label == s.Label
	}
	for {
		f, err := m.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return c, err
		}
		u.add(&c, f)
	}
	for _, t := range h.Tablespaces {
		c.Tablespaces = append(c.Tablespaces, TablespaceUsage{t.OID, t.Path, u.tablespaces[t.OID]})
	}
	for _, db := range u.databases {
		c.Databases = append(c.Databases, *db)
	}
	slices.SortFunc(c.Detect, func(a, b DetectUsage) int { return cmp.Compare(a.By, b.By) })
	slices.SortFunc(c.Databases, func(a, b DatabaseUsage) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.OID, b.OID))
	})
	return c, nil
}

// usage counts bytes while a manifest is read.
type usage struct {
	tablespaces map[uint32]int64
	databases   map[uint32]*DatabaseUsage
	own         map[int]bool // by pack: stored by this backup
	each        func(f FileEntry, own int64)
}

// detected counts how the changes of a file were found.
func (u *usage) detected(c *Contents, f FileEntry) {
	var own int64
	if f.Extents == nil {
		for _, k := range f.Chunks {
			if u.own[k.Pack] {
				own += int64(k.Plain)
			}
		}
	}
	for _, x := range f.Extents {
		if u.own[f.Chunks[x.Chunk].Pack] {
			own += x.Length
		}
	}
	i := slices.IndexFunc(c.Detect, func(w DetectUsage) bool { return w.By == f.Detect })
	if i < 0 {
		i = len(c.Detect)
		c.Detect = append(c.Detect, DetectUsage{By: f.Detect})
	}
	w := &c.Detect[i]
	w.Files, w.Bytes, w.Own = w.Files+1, w.Bytes+f.Size, w.Own+own
	if u.each != nil {
		u.each(f, own)
	}
}

func (u *usage) add(c *Contents, f FileEntry) {
	switch f.Type {
	case Directory:
		c.Directories++
		return
	case Symlink:
		c.Links++
		return
	}
	u.detected(c, f)
	space, database := owner(f.Path)
	u.tablespaces[space] += f.Size
	if database != 0 {
		db := u.databases[database]
		if db == nil {
			db = &DatabaseUsage{OID: database}
			u.databases[database] = db
		}
		db.Files++
		db.Bytes += f.Size
	}
	if len(f.BadPages) > 0 {
		c.BadPages = append(c.BadPages, BadPages{f.Path, slices.Clone(f.BadPages)})
	}
	c.Largest = insertLargest(c.Largest, FileUsage{f.Path, f.Size})
}

// owner tells from a path which tablespace (0: pg_default and pg_global) and
// database (0: none) a file belongs to. relpath.c.
func owner(path string) (tablespace, database uint32) {
	parts := strings.Split(path, "/")
	oid := func(i int) uint32 {
		if i >= len(parts)-1 { // the last part is a file
			return 0
		}
		n, _ := strconv.ParseUint(parts[i], 10, 32)
		return uint32(n)
	}
	switch parts[0] {
	case "base":
		return 0, oid(1)
	case "pg_tblspc":
		return oid(1), oid(3)
	}
	return 0, 0
}

// insertLargest keeps the largest files, largest first.
func insertLargest(largest []FileUsage, f FileUsage) []FileUsage {
	i, _ := slices.BinarySearchFunc(largest, f, func(a, b FileUsage) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Path, b.Path))
	})
	if i == largestFiles {
		return largest
	}
	largest = slices.Insert(largest, i, f)
	return largest[:min(len(largest), largestFiles)]
}
