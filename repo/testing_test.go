package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

const testSystem pg.SystemID = 7212345678901234567

var testTime = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

// testKeys are two separate pairs: data, metadata.
type testKeys struct{ data, metadata *age.X25519Identity }

func newTestKeys(t testing.TB) testKeys {
	d, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	m, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return testKeys{d, m}
}

func (k testKeys) options() KeyOptions {
	return KeyOptions{
		Recipients: k.data.Recipient().String(), Identity: k.data.String(),
		MetadataRecipients: k.metadata.Recipient().String(), MetadataIdentity: k.metadata.String(),
	}
}

func (k testKeys) keys(t testing.TB, change func(*KeyOptions)) *Keys {
	o := k.options()
	if change != nil {
		change(&o)
	}
	keys, err := NewKeys(o)
	require.NoError(t, err)
	return keys
}

func testRepo(t testing.TB, store object.Store, keys *Keys, c codec.Codec) *Repository {
	r, err := Open(Options{
		Name: "repo1", Store: store, Keys: keys, Codec: c, Cluster: "hippo", TempDir: t.TempDir(),
		Clock: func() time.Time { return testTime },
	})
	require.NoError(t, err)
	return r
}

// modes runs a test on a plain and on an encrypted repository.
func modes(t *testing.T, fn func(t *testing.T, keys *Keys)) {
	t.Run("plain", func(t *testing.T) { fn(t, nil) })
	t.Run("encrypted", func(t *testing.T) { fn(t, newTestKeys(t).keys(t, nil)) })
}

func testEpoch(t testing.TB, r *Repository) *Epoch {
	require.NoError(t, r.Init(context.Background()))
	e, err := r.EnsureEpoch(context.Background(), EpochInfo{SystemID: testSystem, PGMajor: 15, SegmentSize: 1 << 20})
	require.NoError(t, err)
	return e
}

// compressible makes n bytes that compress to about a third.
func compressible(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "row %d of %d; balance %x\n", r.IntN(1<<20), seed, r.Uint32())
	}
	return b.Bytes()[:n]
}

// testFile is a path of a small backup; dir if content is nil.
type testFile struct {
	path    string
	content []byte
	link    string
}

func testFiles() []testFile {
	return []testFile{
		{path: "."},
		{path: "PG_VERSION", content: []byte("15\n")},
		{path: "base"},
		{path: "base/1"},
		{path: "base/1/1259", content: compressible(3*MaxChunk+8192, 1)},
		{path: "base/1/2000", content: []byte{}},
		{path: "base/1/2619", content: make([]byte, 16384)},
		{path: "base/5"},
		{path: "conf\xff\xfe \"odd\"\n\\", content: []byte("odd name\n")},
		{path: "global"},
		{path: "global/1262", content: compressible(8192, 2)},
		{path: "pg_tblspc"},
		{path: "pg_tblspc/16400", link: "/srv/fast é"},
		{path: "pg_tblspc/16400/PG_15_202209061"},
		{path: "pg_tblspc/16400/PG_15_202209061/7", content: compressible(100, 3)},
		{path: "pg_wal"},
		{path: "relative", link: "base/1"},
		{path: "backup_label", content: []byte("START WAL LOCATION: 0/2000028\n")},
		{path: "tablespace_map", content: []byte("16400 /srv/fast é\n")},
		{path: "global/pg_control", content: compressible(8192, 4)},
	}
}

func testHeader() Header {
	return Header{
		PGVersion: 150013, SegmentSize: 1 << 20, Timeline: 1, StartLSN: 0x2000028, StopLSN: 0x2000100,
		Start: testTime, Stop: testTime.Add(time.Minute), BlockSize: 8192, DataChecksums: true, PGData: "/pgdata/pg15",
		Tablespaces: []Tablespace{{OID: 16400, Path: "/srv/fast é"}},
	}
}

func testSummary() Summary {
	return Summary{
		PGVersion: 150013, SegmentSize: 1 << 20, Timeline: 1, StartLSN: 0x2000028, StopLSN: 0x2000100,
		Start: testTime, Stop: testTime.Add(time.Minute), Annotations: map[string]string{"why": "test"}, Node: "pg-0",
		WalkeepVersion: "0.1",
	}
}

func fileEntry(f testFile) FileEntry {
	e := FileEntry{Path: f.path, Mode: 0o600, UID: 26, GID: 26, Owner: "postgres", Group: "postgres", MTime: testTime.Add(123456789)}
	switch {
	case f.link != "":
		e.Type, e.Mode, e.Link = Symlink, 0o777, f.link
	case f.content == nil:
		e.Type, e.Mode = Directory, 0o700
	default:
		e.Size, e.CRC, e.Detect = int64(len(f.content)), crc32.Checksum(f.content, castagnoli), "whole"
	}
	return e
}

// writeBackup stores files as a backup, two chunks or more to a pack.
func writeBackup(ctx context.Context, e *Epoch, label Label, files []testFile) (s Summary, err error) {
	b, err := e.CreateBackup(ctx, label)
	if err != nil {
		return s, err
	}
	var pack *PackWriter
	defer func() {
		if err == nil {
			return
		}
		if abortErr := b.Abort(ctx); abortErr != nil {
			err = fmt.Errorf("%w; and then: %w", err, abortErr)
		}
	}()
	enc, err := codec.NewEncoder(e.r.codec)
	if err != nil {
		return s, err
	}
	for _, f := range files {
		entry := fileEntry(f)
		for part := range slices.Chunk(f.content, MaxChunk) {
			if pack == nil {
				if pack, err = b.NewPack(ctx); err != nil {
					return s, err
				}
			}
			frame, c, err := EncodeChunk(enc, nil, part)
			if err != nil {
				return s, err
			}
			c.Pack = pack.ID()
			if c.Offset, err = pack.Append(frame); err != nil {
				return s, err
			}
			entry.Chunks = append(entry.Chunks, c)
			if pack.Size() > 300<<10 {
				if err := pack.Close(); err != nil {
					return s, err
				}
				pack = nil
			}
		}
		if err := b.AddFile(entry); err != nil {
			return s, err
		}
	}
	if pack != nil {
		if err := pack.Close(); err != nil {
			return s, err
		}
	}
	return b.Commit(ctx, testHeader(), testSummary())
}

// readBackup reads a backup back, verifying as a restore would.
func readBackup(ctx context.Context, e *Epoch, label Label) ([]testFile, error) {
	s, err := e.Summary(ctx, label)
	if err != nil {
		return nil, err
	}
	m, err := e.OpenManifest(ctx, s)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var files []testFile
	dec := codec.NewDecoder()
	for {
		entry, err := m.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		f := testFile{path: entry.Path, link: entry.Link}
		if entry.Type == RegularFile {
			f.content = []byte{}
			for _, c := range entry.Chunks {
				if f.content, err = readChunk(ctx, e, m.Packs()[c.Pack], dec, f.content, c); err != nil {
					return nil, err
				}
			}
			if crc32.Checksum(f.content, castagnoli) != entry.CRC || int64(len(f.content)) != entry.Size {
				return nil, fmt.Errorf("file %q is wrong", entry.Path)
			}
		}
		files = append(files, f)
	}
}

func readChunk(ctx context.Context, e *Epoch, ref PackRef, dec *codec.Decoder, dst []byte, c Chunk) ([]byte, error) {
	p, err := e.OpenPack(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, err := p.ReadRange(ctx, c.Offset, int64(c.Stored))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	frame, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return p.DecodeChunk(dec, dst, frame, c)
}

// testHead describes content as a file of pg_wal.
func testHead(name WALName, content []byte) WALHead {
	sum := wal.DigestOf(content)
	h := WALHead{
		Kind: WALKind(name.Kind), Name: name.Name, SystemID: testSystem, Timeline: name.Timeline(), PGMajor: 15,
		XXH3: sum.String(), Length: int64(len(content)), ValidTo: name.ValidTo,
	}
	if name.Kind == pg.FileSegment {
		no, _ := pg.SegmentName(name.Name).Number(1 << 20)
		h.SegmentSize, h.Start, h.Complete = 1<<20, pg.SegmentSize(1<<20).Start(no), true
		h.ValidTo = h.Start + 1<<20
	}
	return h
}

func putWAL(t testing.TB, e *Epoch, name WALName, content []byte, change func(*WALHead)) {
	h := testHead(name, content)
	if change != nil {
		change(&h)
	}
	require.NoError(t, e.PutWAL(context.Background(), h, bytes.NewReader(content)))
}

func putConflict(t testing.TB, e *Epoch, name WALName, content []byte) WALName {
	h := testHead(name, content)
	require.NoError(t, e.PutConflict(context.Background(), h, bytes.NewReader(content)))
	return name.Conflicting(h.XXH3)
}

func segment(t pg.Timeline, n pg.SegmentNo) WALName {
	return SegmentFile(pg.SegmentSize(1<<20).Name(t, n))
}

// contents is all that a store holds.
func contents(t testing.TB, s object.Store) map[string][]byte {
	all := map[string][]byte{}
	var keys []string
	require.NoError(t, s.List(context.Background(), "", object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	}))
	for _, k := range keys {
		all[k] = get(t, s, k)
	}
	return all
}

func get(t testing.TB, s object.Store, key string) []byte {
	r, err := s.Get(context.Background(), key, 0, -1)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return b
}

func put(t testing.TB, s object.Store, key string, b []byte) {
	_, err := s.Put(context.Background(), key, bytes.NewReader(b), object.PutOptions{Size: int64(len(b))})
	require.NoError(t, err)
}

func newMemory() *memory.Store { return memory.New() }

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}
