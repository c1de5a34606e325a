package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

const (
	testSystem pg.SystemID    = 7001
	testSize   pg.SegmentSize = 1 << 20
)

var testTime = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

func open(t testing.TB, store object.Store, keys *repo.Keys) *repo.Repository {
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "hippo", TempDir: t.TempDir(), Keys: keys})
	require.NoError(t, err)
	return r
}

// fill stores a full backup, an incremental that uses its pack, and five
// segments.
func fill(t testing.TB, r *repo.Repository) {
	ctx := context.Background()
	require.NoError(t, r.Init(ctx))
	e, err := r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: testSystem, PGMajor: 15, SegmentSize: testSize})
	require.NoError(t, err)
	stream := waltest.New(testSystem)
	stream.First = 1
	for n := pg.SegmentNo(1); n <= 5; n++ {
		stream.Commit(uint32(700+n), testTime)
		stream.Switch()
		_, content := stream.Segment(int(n - 1))
		sum := wal.DigestOf(content)
		name := repo.SegmentFile(testSize.Name(1, n))
		require.NoError(t, e.PutWAL(ctx, repo.WALHead{
			Kind: repo.WALKind(name.Kind), Name: name.Name, SystemID: testSystem, Timeline: 1, PGMajor: 15, SegmentSize: testSize,
			XXH3: sum.String(), Length: int64(testSize), Start: testSize.Start(n), ValidTo: testSize.Start(n + 1), Complete: true,
		}, bytes.NewReader(content)))
	}
	full := backup(t, e, repo.Full, "", nil, testTime)
	s, err := e.Summary(ctx, full)
	require.NoError(t, err)
	m, err := e.OpenManifest(ctx, s)
	require.NoError(t, err)
	defer m.Close()
	f, err := m.Next()
	require.NoError(t, err)
	backup(t, e, repo.Incremental, full, func(b *repo.BackupWriter, mine *repo.FileEntry) {
		id, err := b.UsePack(m.Packs()[f.Chunks[0].Pack])
		require.NoError(t, err)
		mine.Chunks = append(mine.Chunks, f.Chunks[0])
		mine.Chunks[1].Pack = id
		// The second half of the old file, then the first of the new one.
		mine.Extents = []repo.Extent{{FileOffset: 0, Length: 4096, Chunk: 1, ChunkOffset: 4096}, {FileOffset: 4096, Length: 4096, Chunk: 0}}
		both := append(data(testTime)[4096:], data(testTime.Add(time.Hour))[:4096]...)
		mine.CRC = crc32.Checksum(both, castagnoli)
	}, testTime.Add(time.Hour))
}

func data(at time.Time) []byte {
	b := make([]byte, 8192)
	r := rand.New(rand.NewPCG(uint64(at.Unix()), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func backup(t testing.TB, e *repo.Epoch, typ repo.BackupType, parent repo.Label, change func(*repo.BackupWriter, *repo.FileEntry), at time.Time) repo.Label {
	ctx := context.Background()
	label, err := repo.NewLabel(typ, parent, at)
	require.NoError(t, err)
	b, err := e.CreateBackup(ctx, label)
	require.NoError(t, err)
	p, err := b.NewPack(ctx)
	require.NoError(t, err)
	enc, err := codec.NewEncoder(codec.Default())
	require.NoError(t, err)
	frame, c, err := repo.EncodeChunk(enc, nil, data(at))
	require.NoError(t, err)
	c.Pack = p.ID()
	c.Offset, err = p.Append(frame)
	require.NoError(t, err)
	require.NoError(t, p.Close())
	f := repo.FileEntry{Path: "backup_label", Mode: 0o600, MTime: at, Size: 8192, CRC: crc32.Checksum(data(at), castagnoli), Chunks: []repo.Chunk{c}}
	if change != nil {
		change(b, &f)
	}
	require.NoError(t, b.AddFile(f))
	h := repo.Header{Parent: parent, PGVersion: 150013, SegmentSize: testSize, Timeline: 1, BlockSize: 8192, StartLSN: 0x200028, StopLSN: 0x200100, Start: at, Stop: at}
	s := repo.Summary{Parent: parent, PGVersion: 150013, SegmentSize: testSize, Timeline: 1, StartLSN: 0x200028, StopLSN: 0x200100, Start: at, Stop: at}
	_, err = b.Commit(ctx, h, s)
	require.NoError(t, err)
	return label
}

func options(level Level) Options {
	return Options{Level: level, Clock: func() time.Time { return testTime.AddDate(0, 0, 1) }}
}

func keys(t testing.TB, store object.Store) (all []string) {
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		all = append(all, i.Key)
		return nil
	}))
	return all
}

// Each flipped bit of each object is found at level full and named, each
// missing one that others name at level exists.
func TestEveryDamageIsFound(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	k, err := repo.NewKeys(repo.KeyOptions{Identity: id.String()})
	require.NoError(t, err)
	for mode, keysOf := range map[string]*repo.Keys{"plain": nil, "encrypted": k} {
		t.Run(mode, func(t *testing.T) {
			store := memory.New()
			r := open(t, store, keysOf)
			fill(t, r)
			for _, level := range []Level{Exists, Stored, Full} {
				_, err := Run(t.Context(), r, options(level))
				require.NoError(t, err)
			}
			for _, key := range keys(t, store) {
				if strings.HasPrefix(key, verifiedKeys) {
					require.NoError(t, store.Delete(t.Context(), key))
					continue
				}
				body, err := store.Get(t.Context(), key, 0, -1)
				require.NoError(t, err)
				content, err := io.ReadAll(body)
				require.NoError(t, err)
				bad := bytes.Clone(content)
				bad[len(bad)*2/3] ^= 4
				put := func(b []byte) {
					_, err := store.Put(t.Context(), key, bytes.NewReader(b), object.PutOptions{})
					require.NoError(t, err)
				}
				put(bad)
				rep, err := Run(t.Context(), open(t, store, keysOf), options(Full))
				require.ErrorIs(t, err, repo.ErrIntegrity, key)
				require.Equal(t, key, rep.Problems[0].Object)
				if strings.Contains(key, "/backup/") {
					require.NoError(t, store.Delete(t.Context(), key))
					rep, err = Run(t.Context(), open(t, store, keysOf), options(Exists))
					require.ErrorIs(t, err, repo.ErrIntegrity, key)
					require.Equal(t, key, rep.Problems[0].Object)
				}
				put(content)
				for _, note := range keys(t, store) { // what the run with damage found whole
					if strings.HasPrefix(note, verifiedKeys) {
						require.NoError(t, store.Delete(t.Context(), note))
					}
				}
			}
		})
	}
}

const verifiedKeys = "verified/"

// A second run reads no pack and no segment; a new backup and what is due are
// read.
func TestReadsWhatIsNewOrDue(t *testing.T) {
	below := memory.New()
	fill(t, open(t, below, nil))
	reads := func(o Options) int {
		store := faulty.New(below)
		_, err := Run(t.Context(), open(t, store, nil), o)
		require.NoError(t, err)
		n := 0
		for _, c := range store.Calls() {
			if c.Op == faulty.Get && (strings.Contains(c.Key, "/pack/") || strings.Contains(c.Key, "/wal/")) {
				n++
			}
		}
		return n
	}
	require.Equal(t, 7, reads(options(Stored)))
	require.Zero(t, reads(options(Stored)))
	require.Equal(t, 2+3+5, reads(options(Full)), "packs, chunks, and WAL, which is walked now")
	require.Zero(t, reads(options(Stored)), "full is more than stored")
	backup(t, open(t, below, nil).Epoch(testSystem), repo.Full, "", nil, testTime.Add(2*time.Hour))
	require.Equal(t, 1, reads(options(Stored)))
	later := options(Stored)
	later.Clock = func() time.Time { return testTime.AddDate(0, 0, 40) }
	require.Equal(t, 8, reads(later))
	sample := options(Stored)
	sample.Sample, sample.Clock = 1, later.Clock
	require.Equal(t, 8, reads(sample))
}

// Without the identity of the data what can be looked at is, and the rest is
// said.
func TestWithoutDataIdentity(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	meta, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	k, err := repo.NewKeys(repo.KeyOptions{Recipients: id.Recipient().String(), MetadataIdentity: meta.String()})
	require.NoError(t, err)
	store := memory.New()
	fill(t, open(t, store, k))
	rep, err := Run(t.Context(), open(t, store, k), options(Full))
	require.NoError(t, err)
	require.Len(t, rep.Notes, 2)
	require.Equal(t, 2, rep.Read.Packs)
	rep, err = Run(t.Context(), open(t, store, k), options(Full))
	require.NoError(t, err)
	require.Zero(t, rep.Skipped, "nothing was verified in full")
}

// WAL that has its digest and does not hold together, and pages with wrong
// checksums that nobody listed, are found at level full.
func TestFullLooksInside(t *testing.T) {
	store := memory.New()
	r := open(t, store, nil)
	fill(t, r)
	e := r.Epoch(testSystem)
	content := make([]byte, testSize)
	sum := wal.DigestOf(content)
	name := repo.SegmentFile(testSize.Name(1, 6))
	require.NoError(t, e.PutWAL(t.Context(), repo.WALHead{
		Kind: repo.WALKind(name.Kind), Name: name.Name, SystemID: testSystem, Timeline: 1, PGMajor: 15, SegmentSize: testSize,
		XXH3: sum.String(), Length: int64(testSize), Start: testSize.Start(6), ValidTo: testSize.Start(7), Complete: true,
	}, bytes.NewReader(content)))
	_, err := Run(t.Context(), r, options(Stored))
	require.NoError(t, err)
	rep, err := Run(t.Context(), r, options(Full))
	require.ErrorIs(t, err, repo.ErrIntegrity)
	require.Len(t, rep.Problems, 1)
	require.Contains(t, rep.Problems[0].Object, name.Name)

	page := func(lsn pg.LSN, block uint32, right bool) []byte {
		b := make([]byte, pg.PageSize)
		binary.LittleEndian.PutUint32(b[4:], uint32(lsn))
		binary.LittleEndian.PutUint16(b[14:], 4000)
		sum := pg.PageChecksum(b, block)
		if !right {
			sum++
		}
		binary.LittleEndian.PutUint16(b[8:], sum)
		return b
	}
	c := newPageCheck("base/5/16384.1", 1000, 0x200028)
	file := slices.Concat(page(8, 1000, true), page(8, 1001, false), page(0x200028, 1002, false), page(8, 1003, true), page(8, 1003, true))
	for len(file) > 0 { // in pieces that are no pages
		n := min(5000, len(file))
		c.add(file[:n])
		file = file[n:]
	}
	require.Equal(t, []uint32{1, 4}, c.bad, "the third is torn, and replay restores it")
	c = newPageCheck("base/5/pg_filenode.map", 1000, 8)
	c.add(make([]byte, 512))
	require.Empty(t, c.bad)
}
