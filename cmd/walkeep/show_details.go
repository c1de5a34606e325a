package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/walkeep/walkeep/repo"
)

// largestFiles is how many files `show` names.
const largestFiles = 10

// backupDetails is what `show --json` prints: the summary's own fields, and
// what the manifest adds.
type backupDetails struct {
	Repo string `json:"repo"`
	repo.Summary
	DataChecksums bool              `json:"data_checksums"`
	PGData        string            `json:"pgdata,omitempty"`
	Directories   int64             `json:"directories"`
	Links         int64             `json:"links"`
	Tablespaces   []tablespaceUsage `json:"tablespaces"`
	Databases     []databaseUsage   `json:"databases"`
	Largest       []fileUsage       `json:"largest_files"`
	Detect        []detectUsage     `json:"detect"`
	BadPages      []badPages        `json:"bad_pages"`
	EveryFile     []fileDetect      `json:"every_file,omitempty"` // with --files
}

// detectUsage is how much of a backup was found to be changed, or not, by one
// way of detecting that.
type detectUsage struct {
	By    string `json:"by"`
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
	// Own is how many of the bytes this backup stored itself; the others are
	// in packs of earlier ones.
	Own int64 `json:"own"`
}

// fileDetect is the same of one file.
type fileDetect struct {
	Path  string `json:"path"`
	By    string `json:"by"`
	Bytes int64  `json:"bytes"`
	Own   int64  `json:"own"`
}

type tablespaceUsage struct {
	OID   uint32 `json:"oid"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// databaseUsage is all of one database, in every tablespace. The manifest does
// not know its name.
type databaseUsage struct {
	OID   uint32 `json:"oid"`
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
}

type fileUsage struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

type badPages struct {
	Path  string   `json:"path"`
	Pages []uint32 `json:"pages"`
}

// describe reads a backup's manifest from beginning to end, in constant memory.
func describe(ctx context.Context, b foundBackup, files bool) (d backupDetails, err error) {
	m, err := b.epoch.OpenManifest(ctx, b.summary)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	h := m.Header()
	d = backupDetails{
		Repo: b.repository.Name(), Summary: b.summary, DataChecksums: h.DataChecksums, PGData: h.PGData,
		Tablespaces: []tablespaceUsage{}, Databases: []databaseUsage{}, Largest: []fileUsage{}, BadPages: []badPages{}, Detect: []detectUsage{},
	}
	u := usage{tablespaces: map[uint32]int64{}, databases: map[uint32]*databaseUsage{}, own: map[int]bool{}, files: files}
	for id, p := range m.Packs() {
		u.own[id] = p.Label == b.summary.Label
	}
	for {
		f, err := m.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return d, err
		}
		u.add(&d, f)
	}
	for _, t := range h.Tablespaces {
		d.Tablespaces = append(d.Tablespaces, tablespaceUsage{t.OID, t.Path, u.tablespaces[t.OID]})
	}
	for _, db := range u.databases {
		d.Databases = append(d.Databases, *db)
	}
	slices.SortFunc(d.Detect, func(a, b detectUsage) int { return cmp.Compare(a.By, b.By) })
	slices.SortFunc(d.Databases, func(a, b databaseUsage) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.OID, b.OID))
	})
	return d, nil
}

// usage counts bytes while a manifest is read.
type usage struct {
	tablespaces map[uint32]int64
	databases   map[uint32]*databaseUsage
	own         map[int]bool // by pack: stored by this backup
	files       bool         // name every file
}

// detected counts how the changes of a file were found.
func (u *usage) detected(d *backupDetails, f repo.FileEntry) {
	var own int64
	if f.Extents == nil {
		for _, c := range f.Chunks {
			if u.own[c.Pack] {
				own += int64(c.Plain)
			}
		}
	}
	for _, x := range f.Extents {
		if u.own[f.Chunks[x.Chunk].Pack] {
			own += x.Length
		}
	}
	i := slices.IndexFunc(d.Detect, func(w detectUsage) bool { return w.By == f.Detect })
	if i < 0 {
		i = len(d.Detect)
		d.Detect = append(d.Detect, detectUsage{By: f.Detect})
	}
	w := &d.Detect[i]
	w.Files, w.Bytes, w.Own = w.Files+1, w.Bytes+f.Size, w.Own+own
	if u.files {
		d.EveryFile = append(d.EveryFile, fileDetect{f.Path, f.Detect, f.Size, own})
	}
}

func (u *usage) add(d *backupDetails, f repo.FileEntry) {
	switch f.Type {
	case repo.Directory:
		d.Directories++
		return
	case repo.Symlink:
		d.Links++
		return
	}
	u.detected(d, f)
	space, database := owner(f.Path)
	u.tablespaces[space] += f.Size
	if database != 0 {
		db := u.databases[database]
		if db == nil {
			db = &databaseUsage{OID: database}
			u.databases[database] = db
		}
		db.Files++
		db.Bytes += f.Size
	}
	if len(f.BadPages) > 0 {
		d.BadPages = append(d.BadPages, badPages{f.Path, slices.Clone(f.BadPages)})
	}
	d.Largest = insertLargest(d.Largest, fileUsage{f.Path, f.Size})
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
func insertLargest(largest []fileUsage, f fileUsage) []fileUsage {
	i, _ := slices.BinarySearchFunc(largest, f, func(a, b fileUsage) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Path, b.Path))
	})
	if i == largestFiles {
		return largest
	}
	largest = slices.Insert(largest, i, f)
	return largest[:min(len(largest), largestFiles)]
}

// annotations are key=value pairs for people, in the order of their keys.
func annotations(m map[string]string) []string {
	var all []string
	for k, v := range m {
		all = append(all, printable(k+"="+v))
	}
	slices.Sort(all)
	return all
}
