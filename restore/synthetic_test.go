package restore

import (
	"bytes"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// content is a made-up data directory: files by path. A path that ends in '/'
// is a directory, parents are implied.
type content map[string][]byte

const (
	syntheticID  = pg.SystemID(7001)
	syntheticTS  = "pg_tblspc/16400"
	syntheticVer = syntheticTS + "/PG_15_202209061"
)

// someData is bytes that compress a little.
func someData(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.IntN(40))
	}
	return b
}

// syntheticContent has every kind of file that matters: empty, tiny, of many
// chunks, with a tail that is not a page, with zeroes in front, in the middle,
// at the end, and of nothing else.
func syntheticContent(rng *rand.Rand) content {
	holes := someData(rng, 5<<20)
	clear(holes[1<<20 : 3<<20])
	clear(holes[:8192])
	clear(holes[len(holes)-3*8192:])
	c := content{
		"PG_VERSION": []byte("15\n"), "postgresql.auto.conf": []byte("work_mem = '4MB'\nrecovery_target_name = 'old'\n"),
		"base/5/1249": someData(rng, 8192), "base/5/1250": someData(rng, 3<<20+8192), "base/5/1255": nil,
		"base/5/1300": holes, "base/5/1301": make([]byte, 2<<20), "base/5/1302": someData(rng, 1<<20+777),
		"base/5/1303": make([]byte, 100), "base/16384/2000": someData(rng, 100_000),
		"global/1262": someData(rng, 8192), "pg_wal/archive_status/": nil, "pg_notify/": nil,
		"pg_xact/0000": someData(rng, 8192), "odd \xff\n\"name\"": []byte("odd"),
		"backup_label": []byte("START WAL LOCATION: …\n"), "tablespace_map": []byte("16400 /somewhere\n"),
		controlFile: someData(rng, 8192),
	}
	for i := range 40 {
		c["base/5/small"+string(rune('a'+i%26))+string(rune('0'+i/26))] = someData(rng, rng.IntN(3000))
	}
	return c
}

// order lists paths the way a manifest does, with directories in front of what
// is in them.
func (c content) order() []string {
	last := []string{"backup_label", "tablespace_map", controlFile}
	seen := map[string]bool{}
	var paths []string
	add := func(p string) {
		if !seen[p] && p != "." {
			seen[p] = true
			paths = append(paths, p)
		}
	}
	for p := range c {
		for d := filepath.Dir(filepath.Clean(p)); d != "."; d = filepath.Dir(d) {
			add(d)
		}
		add(filepath.Clean(p))
	}
	for _, l := range last {
		for i, p := range paths {
			if p == l {
				paths = append(paths[:i], paths[i+1:]...)
				break
			}
		}
	}
	sort.Slice(paths, func(i, j int) bool { return repo.ComparePaths(paths[i], paths[j]) < 0 })
	for _, l := range last {
		if seen[l] {
			paths = append(paths, l)
		}
	}
	return paths
}

// isFile reports whether a path is a file and not a directory.
func (c content) isFile(p string) bool { _, ok := c[p]; return ok }

// synthetic is a repository with backups that never saw a server.
type synthetic struct {
	t     *testing.T
	store object.Store
	epoch *repo.Epoch
	base  map[string]baseFile // of the latest backup, for incremental ones
	at    time.Time
	// databases are what its headers list.
	databases []repo.Database
}

type baseFile struct {
	entry repo.FileEntry
	packs map[int]repo.PackRef
	data  []byte
}

func newSynthetic(t *testing.T, store object.Store) *synthetic {
	t.Helper()
	if store == nil {
		store = memory.New()
	}
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "test", TempDir: t.TempDir(), Codec: codec.Codec{Name: codec.Zstd, Level: 1}})
	require.NoError(t, err)
	require.NoError(t, r.Init(t.Context()))
	e, err := r.EnsureEpoch(t.Context(), repo.EpochInfo{SystemID: syntheticID, PGMajor: 15, SegmentSize: 16 << 20})
	require.NoError(t, err)
	return &synthetic{t: t, store: store, epoch: e, at: epoch0}
}

// reopen reads the same objects through another store.
func (s *synthetic) reopen(store object.Store) *repo.Epoch {
	s.t.Helper()
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "test", TempDir: s.t.TempDir()})
	require.NoError(s.t, err)
	return r.Epoch(syntheticID)
}

// backup stores a backup of c in packs of about packSize. If s has an earlier
// one and kind is not full, unchanged pages come from that one's chunks.
func (s *synthetic) backup(c content, kind repo.BackupType, packSize int64, links map[string]string) repo.Summary {
	s.t.Helper()
	t := s.t
	s.at = s.at.Add(time.Hour)
	parent := repo.Label("")
	if kind != repo.Full {
		parent = repo.Label(epoch0.Add(time.Hour).Format("20060102-150405") + "F")
	}
	label, err := repo.NewLabel(kind, parent, s.at)
	require.NoError(t, err)
	b, err := s.epoch.CreateBackup(t.Context(), label)
	require.NoError(t, err)
	w := &syntheticWriter{s: s, b: b, packSize: packSize}
	next := map[string]baseFile{}
	h := repo.Header{PGVersion: 150004, SegmentSize: 16 << 20, BlockSize: 8192, Timeline: 1, StartLSN: 16 << 20, StopLSN: 17 << 20, Start: s.at, Stop: s.at, Databases: s.databases}
	for link, to := range links {
		h.Tablespaces = append(h.Tablespaces, repo.Tablespace{OID: oidOf(link), Path: to})
	}
	for _, p := range c.order() {
		f := repo.FileEntry{Path: p, Mode: 0o600, MTime: s.at.Add(-time.Hour).Add(123456789), Owner: "nobody", Group: "nogroup", UID: 1, GID: 1}
		switch {
		case links[p] != "":
			f.Type, f.Link, f.Mode = repo.Symlink, links[p], 0o777
		case !c.isFile(p):
			f.Type, f.Mode = repo.Directory, 0o700
		default:
			w.content(&f, c[p], kind != repo.Full)
		}
		require.NoError(t, b.AddFile(f), p)
		next[p] = baseFile{entry: f, data: c[p]}
	}
	w.close()
	sum, err := b.Commit(t.Context(), h, repo.Summary{
		Parent: parent, Start: s.at, Stop: s.at, StartLSN: h.StartLSN, StopLSN: h.StopLSN, Timeline: 1, PGVersion: h.PGVersion, SegmentSize: h.SegmentSize,
	})
	require.NoError(t, err)
	m, err := s.epoch.OpenManifest(t.Context(), sum)
	require.NoError(t, err)
	for p, f := range next {
		f.packs = m.Packs()
		next[p] = f
	}
	require.NoError(t, m.Close())
	s.base = next
	return sum
}

// plan is a plan for a backup that no planner has judged.
func (s *synthetic) plan(sum repo.Summary) *Plan {
	return &Plan{
		Repository: "repo1", SystemID: syntheticID, Backup: sum, Target: Target{Kind: TargetEnd, Action: Promote},
		Timeline: 1, TimelineSetting: "1", Path: []pg.TimelineSpan{{Timeline: 1, From: sum.StartLSN, To: sum.StopLSN}}, SegmentSize: 16 << 20, epoch: s.epoch,
	}
}

type syntheticWriter struct {
	s        *synthetic
	b        *repo.BackupWriter
	pack     *repo.PackWriter
	packSize int64
}

func (w *syntheticWriter) chunk(plain []byte) repo.Chunk {
	t := w.s.t
	enc, err := codec.NewEncoder(codec.Codec{Name: codec.Zstd, Level: 1})
	require.NoError(t, err)
	frame, c, err := repo.EncodeChunk(enc, nil, plain)
	require.NoError(t, err)
	if w.pack != nil && w.pack.Size() >= w.packSize {
		w.close()
	}
	if w.pack == nil {
		w.pack, err = w.b.NewPack(t.Context())
		require.NoError(t, err)
	}
	c.Pack = w.pack.ID()
	c.Offset, err = w.pack.Append(frame)
	require.NoError(t, err)
	return c
}

func (w *syntheticWriter) close() {
	if w.pack != nil {
		require.NoError(w.s.t, w.pack.Close())
		w.pack = nil
	}
}

// content stores a file: whole, or as the pages that changed and references to
// the pages that did not.
func (w *syntheticWriter) content(f *repo.FileEntry, data []byte, incremental bool) {
	f.Size, f.CRC, f.Detect = int64(len(data)), crc32.Checksum(data, castagnoli), "whole"
	old, ok := w.s.base[f.Path]
	if !incremental || !ok || len(old.data) != len(data) || len(data)%8192 != 0 {
		for part := range chunksOf(data) {
			f.Chunks = append(f.Chunks, w.chunk(part))
		}
		return
	}
	w.pages(f, data, old)
}

func chunksOf(data []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			n := min(len(data), repo.MaxChunk)
			if !yield(data[:n]) {
				return
			}
			data = data[n:]
		}
	}
}

// pages makes extents: changed pages of the file in new chunks, side by side,
// all others in the chunks of the earlier backup.
func (w *syntheticWriter) pages(f *repo.FileEntry, data []byte, old baseFile) {
	t := w.s.t
	type from struct {
		chunk int
		at    int64
	}
	where := map[int64]from{} // by page
	if old.entry.Extents == nil {
		var at int64
		for i, c := range old.entry.Chunks {
			for o := int64(0); o < int64(c.Plain); o += 8192 {
				where[(at+o)/8192] = from{i, o}
			}
			at += int64(c.Plain)
		}
	}
	for _, x := range old.entry.Extents {
		for o := int64(0); o < x.Length; o += 8192 {
			where[(x.FileOffset+o)/8192] = from{x.Chunk, x.ChunkOffset + o}
		}
	}
	used := map[int]int{} // chunk of the old entry → of this one
	var changed []byte
	var changedPages []int64
	for p := int64(0); p < int64(len(data))/8192; p++ {
		page := data[p*8192 : (p+1)*8192]
		if !bytes.Equal(page, old.data[p*8192:(p+1)*8192]) {
			changed, changedPages = append(changed, page...), append(changedPages, p)
			delete(where, p)
			continue
		}
		o := where[p]
		if _, ok := used[o.chunk]; !ok {
			c := old.entry.Chunks[o.chunk]
			id, err := w.b.UsePack(old.packs[c.Pack])
			require.NoError(t, err)
			c.Pack = id
			used[o.chunk] = len(f.Chunks)
			f.Chunks = append(f.Chunks, c)
		}
		where[p] = from{used[o.chunk], o.at}
	}
	n := 0
	for part := range chunksOf(changed) {
		f.Chunks = append(f.Chunks, w.chunk(part))
		for o := 0; o < len(part); o += 8192 {
			where[changedPages[n]] = from{len(f.Chunks) - 1, int64(o)}
			n++
		}
	}
	for p := int64(0); p < int64(len(data))/8192; p++ {
		o := where[p]
		if k := len(f.Extents) - 1; k >= 0 && f.Extents[k].Chunk == o.chunk && f.Extents[k].ChunkOffset+f.Extents[k].Length == o.at {
			f.Extents[k].Length += 8192
			continue
		}
		f.Extents = append(f.Extents, repo.Extent{FileOffset: p * 8192, Length: 8192, Chunk: o.chunk, ChunkOffset: o.at})
	}
}

// requireRestored compares a directory with what it should hold.
func requireRestored(t *testing.T, dir string, c content, tablespaces map[string]string) {
	t.Helper()
	var found []string
	roots := map[string]string{"": dir}
	for link, d := range tablespaces {
		roots[link] = d
		to, err := os.Readlink(filepath.Join(dir, link))
		require.NoError(t, err)
		require.Equal(t, d, to)
	}
	for link, d := range roots {
		require.NoError(t, filepath.Walk(d, func(p string, st os.FileInfo, err error) error {
			if err == nil && st.Mode().IsRegular() {
				rel, _ := filepath.Rel(d, p)
				found = append(found, filepath.Join(link, rel))
			}
			return err
		}))
	}
	want := map[string]bool{"recovery.signal": true, "backup_manifest": true, "postgresql.auto.conf": true}
	for p := range c {
		if p != "tablespace_map" && c.isFile(p) && p[len(p)-1] != '/' && tablespaces[p] == "" {
			want[p] = true
		}
	}
	for _, p := range found {
		require.True(t, want[p], "unexpected file %s", p)
		delete(want, p)
		data, ok := c[p]
		if !ok || p == "postgresql.auto.conf" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, p))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "content of %s", p)
		st, err := os.Stat(filepath.Join(dir, p))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode(), p)
	}
	require.Empty(t, want, "missing files")
}

func readAll(t *testing.T, store object.Store, key string) []byte {
	t.Helper()
	r, err := store.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return b
}
