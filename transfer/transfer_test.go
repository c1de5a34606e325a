package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/retention"
	"github.com/walkeep/walkeep/verify"
)

const (
	testSystem pg.SystemID    = 7001
	testSize   pg.SegmentSize = 1 << 20
	fullLabel  repo.Label     = "20261122-010000F"
	diffLabel  repo.Label     = "20261122-010000F_20261122-020000D"
	incLabel   repo.Label     = "20261122-010000F_20261122-030000I"
	killed     repo.Label     = "20261122-003000F"
)

var testTime = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

func open(t testing.TB, name string, store object.Store, keys *repo.Keys) *repo.Repository {
	r, err := repo.Open(repo.Options{Name: name, Store: store, Cluster: "hippo", TempDir: t.TempDir(), Keys: keys})
	require.NoError(t, err)
	return r
}

func testKeys(t testing.TB) *repo.Keys {
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	k, err := repo.NewKeys(repo.KeyOptions{Identity: id.String()})
	require.NoError(t, err)
	return k
}

// chunkOf is where a chunk is in a repository.
type chunkOf struct {
	ref   repo.PackRef
	chunk repo.Chunk
	plain []byte
}

// fill stores a full backup that uses a pack of a killed one, a differential,
// and an incremental, each with a file of its own and those before it, and
// WAL.
func fill(t testing.TB, r *repo.Repository) {
	ctx := context.Background()
	require.NoError(t, r.Init(ctx))
	e, err := r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: testSystem, PGMajor: 15, SegmentSize: testSize})
	require.NoError(t, err)
	for n := pg.SegmentNo(1); n <= 6; n++ {
		segment(t, e, n, "")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var have []chunkOf
	left := put(t, e, killed, "", nil, rng, false)
	have = append(have, left...)
	have = append(have, put(t, e, fullLabel, "", have, rng, true)...)
	have = append(have, put(t, e, diffLabel, fullLabel, have, rng, true)...)
	put(t, e, incLabel, diffLabel, have, rng, true)
}

func segment(t testing.TB, e *repo.Epoch, n pg.SegmentNo, salt string) {
	content := bytes.Repeat([]byte(fmt.Sprint(salt, n)), 1000)
	sum := wal.DigestOf(content)
	name := repo.SegmentFile(testSize.Name(1, n))
	require.NoError(t, e.PutWAL(context.Background(), repo.WALHead{
		Kind: repo.WALKind(name.Kind), Name: name.Name, SystemID: testSystem, Timeline: 1, PGMajor: 15, SegmentSize: testSize,
		XXH3: sum.String(), Length: int64(len(content)), Start: testSize.Start(n), ValidTo: testSize.Start(n + 1), Complete: true,
		Changes: &pg.BlockChanges{Relations: map[pg.RelFile]*pg.RelChanges{{Tablespace: 1663, Database: 5, Number: 16384}: {Blocks: []uint32{uint32(n)}}}},
	}, bytes.NewReader(content)))
}

// put stores a backup with two packs of its own, or leaves only the packs.
func put(t testing.TB, e *repo.Epoch, label, parent repo.Label, have []chunkOf, rng *rand.Rand, commit bool) (mine []chunkOf) {
	ctx := context.Background()
	b, err := e.CreateBackup(ctx, label)
	require.NoError(t, err)
	enc, err := codec.NewEncoder(codec.Default())
	require.NoError(t, err)
	type waiting struct {
		path string
		c    chunkOf
	}
	var files []waiting
	for i, c := range have {
		id, err := b.UsePack(c.ref)
		require.NoError(t, err)
		c.chunk.Pack = id
		files = append(files, waiting{fmt.Sprintf("f%02d", i), c})
	}
	for n := range 2 {
		p, err := b.NewPack(ctx)
		require.NoError(t, err)
		plain := make([]byte, 3000+rng.IntN(100_000))
		for i := range plain {
			plain[i] = byte(rng.Uint32N(7))
		}
		frame, c, err := repo.EncodeChunk(enc, nil, plain)
		require.NoError(t, err)
		c.Pack = p.ID()
		c.Offset, err = p.Append(frame)
		require.NoError(t, err)
		require.NoError(t, p.Close())
		files = append(files, waiting{fmt.Sprintf("g%d", n), chunkOf{chunk: c, plain: plain}})
	}
	for _, f := range files {
		require.NoError(t, b.AddFile(repo.FileEntry{
			Path: f.path, Mode: 0o600, MTime: testTime, Size: int64(len(f.c.plain)),
			CRC: crc32.Checksum(f.c.plain, crc32.MakeTable(crc32.Castagnoli)), Chunks: []repo.Chunk{f.c.chunk},
		}))
	}
	h := repo.Header{Parent: parent, PGVersion: 150013, SegmentSize: testSize, Timeline: 1, BlockSize: 8192, StartLSN: 0x200028, StopLSN: 0x300100, Start: label.Time(), Stop: label.Time()}
	s := repo.Summary{Parent: parent, PGVersion: 150013, SegmentSize: testSize, Timeline: 1, StartLSN: 0x200028, StopLSN: 0x300100, Start: label.Time(), Stop: label.Time()}
	stored, err := b.Commit(ctx, h, s)
	require.NoError(t, err)
	m, err := e.OpenManifest(ctx, stored)
	require.NoError(t, err)
	defer m.Close()
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if ref := m.Packs()[f.Chunks[0].Pack]; ref.Label == label {
			mine = append(mine, chunkOf{ref, f.Chunks[0], files[len(have)+len(mine)].c.plain})
		}
	}
	if !commit {
		_, err := e.DeleteSummaries(ctx, label)
		require.NoError(t, err)
	}
	return mine
}

// requireWhole verifies a repository in full, and that of its backups.
func requireWhole(t testing.TB, r *repo.Repository, labels ...repo.Label) {
	t.Helper()
	rep, err := verify.Run(t.Context(), r, verify.Options{Level: verify.Exists})
	require.NoError(t, err, rep.Problems)
	rep, err = verify.Run(t.Context(), r, verify.Options{Level: verify.Stored, Due: time.Nanosecond})
	require.NoError(t, err, rep.Problems)
	e := r.Epoch(testSystem)
	all, err := e.Backups(t.Context())
	require.NoError(t, err)
	var got []repo.Label
	for _, s := range all {
		got = append(got, s.Label)
		require.Equal(t, digests(t, sourceOf(t, s.Label), s.Label), digests(t, e, s.Label), s.Label)
	}
	require.Equal(t, labels, got)
}

// sourceOf is a plain repository that is filled like all others.
func sourceOf(t testing.TB, _ repo.Label) *repo.Epoch {
	r := open(t, "model", memory.New(), nil)
	fill(t, r)
	return r.Epoch(testSystem)
}

// digests is path and content of every file, from what is really stored.
func digests(t testing.TB, e *repo.Epoch, label repo.Label) (list []string) {
	s, err := e.Summary(t.Context(), label)
	require.NoError(t, err)
	m, err := e.OpenManifest(t.Context(), s)
	require.NoError(t, err)
	defer m.Close()
	dec := codec.NewDecoder()
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		require.NoError(t, err)
		for _, c := range f.Chunks {
			p, err := e.OpenPack(t.Context(), m.Packs()[c.Pack])
			require.NoError(t, err)
			body, err := p.ReadRange(t.Context(), c.Offset, int64(c.Stored))
			require.NoError(t, err)
			frame, err := io.ReadAll(body)
			require.NoError(t, err)
			plain, err := p.DecodeChunk(dec, nil, frame, c)
			require.NoError(t, err)
			list = append(list, fmt.Sprintf("%s %x", f.Path, sha256.Sum256(plain)))
		}
	}
}

func TestCopy(t *testing.T) {
	k, other := testKeys(t), testKeys(t)
	for name, c := range map[string]struct{ from, to *repo.Keys }{
		"plain": {nil, nil}, "encrypt": {nil, k}, "decrypt": {k, nil}, "others": {k, other},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := open(t, "repo1", memory.New(), c.from), open(t, "repo2", memory.New(), c.to)
			fill(t, from)
			o := Options{From: from, To: to, SystemID: testSystem, Label: diffLabel}
			r, err := Run(t.Context(), o)
			require.NoError(t, err)
			require.Equal(t, []repo.Label{fullLabel, diffLabel}, r.Copied)
			require.Equal(t, 2+2+2, r.Packs, "those of the killed backup, once")
			require.Equal(t, 2, r.Segments)
			requireWhole(t, to, fullLabel, diffLabel)

			o.Label, o.AllWAL = incLabel, true
			r, err = Run(t.Context(), o)
			require.NoError(t, err)
			require.Equal(t, []repo.Label{incLabel}, r.Copied)
			require.Equal(t, 2, r.Packs)
			require.Equal(t, 3, r.Segments)
			require.Equal(t, testSize.Start(7), r.Latest)
			requireWhole(t, to, fullLabel, diffLabel, incLabel)
			changes, err := to.Epoch(testSystem).WALChanges(t.Context(), testSize.Name(1, 3))
			require.NoError(t, err)
			require.Len(t, changes.Relations, 1)

			// Expiry finds no garbage, and nothing to keep it from its work.
			_, err = retention.Run(t.Context(), to, retention.Options{})
			require.NoError(t, err)
			requireWhole(t, to, fullLabel, diffLabel, incLabel)
			uses, err := from.Uses(t.Context())
			require.NoError(t, err)
			require.Empty(t, uses)
		})
	}
}

// Where both repositories got the same backup, but cut into packs in another
// way, the copy of what builds on it holds what it needs itself.
func TestCopyOntoAnotherParent(t *testing.T) {
	from, store := open(t, "repo1", memory.New(), nil), memory.New()
	fill(t, from)
	to := open(t, "repo2", store, nil)
	o := Options{From: from, To: to, SystemID: testSystem, Label: fullLabel}
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	e := to.Epoch(testSystem)
	_, err = e.DeleteSummaries(t.Context(), fullLabel)
	require.NoError(t, err)
	_, err = e.DeleteBackupData(t.Context(), fullLabel, func(context.Context) error { return nil })
	require.NoError(t, err)
	s, err := from.Epoch(testSystem).Summary(t.Context(), fullLabel)
	require.NoError(t, err)
	// As many bytes, in one pack.
	w, err := e.CreateBackup(t.Context(), fullLabel)
	require.NoError(t, err)
	p, err := w.NewPack(t.Context())
	require.NoError(t, err)
	enc, err := codec.NewEncoder(codec.Default())
	require.NoError(t, err)
	plain := make([]byte, s.Bytes)
	var c repo.Chunk
	var frame []byte
	frame, c, err = repo.EncodeChunk(enc, nil, plain)
	require.NoError(t, err)
	c.Pack = p.ID()
	_, err = p.Append(frame)
	require.NoError(t, err)
	require.NoError(t, p.Close())
	require.NoError(t, w.AddFile(repo.FileEntry{Path: "f", MTime: testTime, Size: s.Bytes, CRC: crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli)), Chunks: []repo.Chunk{c}}))
	_, err = w.Commit(t.Context(), repo.Header{PGVersion: 150013, SegmentSize: testSize, Timeline: 1, BlockSize: 8192, StartLSN: s.StartLSN, StopLSN: s.StopLSN},
		repo.Summary{PGVersion: 150013, SegmentSize: testSize, Timeline: 1, StartLSN: s.StartLSN, StopLSN: s.StopLSN})
	require.NoError(t, err)

	o.Label = incLabel
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, []repo.Label{diffLabel, incLabel}, r.Copied)
	require.Equal(t, 6+2, r.Packs)
	for _, l := range r.Copied {
		require.Equal(t, digests(t, from.Epoch(testSystem), l), digests(t, e, l))
	}
}

// Whatever call of the target fails, what is listed there is whole, and the next
// copy succeeds, with the packs that are there.
func TestEveryCallOfTheTargetFails(t *testing.T) {
	from := open(t, "repo1", memory.New(), nil)
	fill(t, from)
	k := testKeys(t)
	for mode, keys := range map[string]*repo.Keys{"plain": nil, "encrypted": k} {
		o := Options{From: from, SystemID: testSystem, Label: diffLabel, Workers: 1}
		count := faulty.New(memory.New())
		o.To = open(t, "repo2", count, keys)
		_, err := Run(t.Context(), o)
		require.NoError(t, err)
		calls := len(count.Calls())
		for _, fault := range []faulty.Fault{faulty.Fail, faulty.LoseAnswer, faulty.Truncate} {
			for n := 1; n <= calls; n++ {
				store := faulty.New(memory.New(), faulty.Rule{At: n, Fault: fault})
				o.To = open(t, "repo2", store, keys)
				_, err := Run(t.Context(), o)
				store.SetRules()
				listed, lerr := o.To.Epoch(testSystem).Backups(t.Context())
				if lerr == nil {
					for _, s := range listed {
						require.NotEmpty(t, digests(t, o.To.Epoch(testSystem), s.Label))
					}
				}
				if err == nil {
					require.Len(t, listed, 2)
				}
				// A lease whose release failed goes stale after five minutes.
				var leases []string
				require.NoError(t, store.List(t.Context(), "lease/", object.ListOptions{}, func(i object.Info) error { leases = append(leases, i.Key); return nil }))
				require.NoError(t, store.Delete(t.Context(), leases...))
				_, err = Run(t.Context(), o)
				require.NoError(t, err, "%s %s call %d", mode, fault, n)
				all, err := o.To.Epoch(testSystem).Backups(t.Context())
				require.NoError(t, err)
				require.Len(t, all, 2)
				for _, s := range all {
					require.Equal(t, digests(t, from.Epoch(testSystem), s.Label), digests(t, o.To.Epoch(testSystem), s.Label))
				}
			}
		}
	}
}

// Several copies at once, of backups that share what they build on.
func TestCopiesAtOnce(t *testing.T) {
	from, to := open(t, "repo1", memory.New(), nil), memory.New()
	fill(t, from)
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		all.Go(func() {
			_, errs[i] = Run(t.Context(), Options{
				From: from, To: open(t, "repo2", to, nil), SystemID: testSystem, Label: []repo.Label{diffLabel, incLabel}[i%2], Wait: time.Minute, AllWAL: i == 3,
			})
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	requireWhole(t, open(t, "repo2", to, nil), fullLabel, diffLabel, incLabel)
}

// Damage of the source does not get into the target.
func TestDamagedSource(t *testing.T) {
	store := memory.New()
	from, to := open(t, "repo1", store, nil), open(t, "repo2", memory.New(), nil)
	fill(t, from)
	var key string
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		if strings.Contains(i.Key, string(fullLabel)+"/pack/") {
			key = i.Key
		}
		return nil
	}))
	body, err := store.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	b, err := io.ReadAll(body)
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	_, err = store.Put(t.Context(), key, bytes.NewReader(b), object.PutOptions{})
	require.NoError(t, err)
	_, err = Run(t.Context(), Options{From: from, To: to, SystemID: testSystem, Label: fullLabel})
	require.ErrorIs(t, err, repo.ErrIntegrity)
	all, err := to.Epoch(testSystem).Backups(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)
	_, err = Run(t.Context(), Options{From: from, To: to, SystemID: testSystem, Label: "20300101-000000F"})
	require.ErrorIs(t, err, repo.ErrNotFound)
}
