package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
)

const testLabel Label = "20261122-010000F"

func TestBackupRoundTrip(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		for _, c := range []codec.Codec{{Name: codec.Zstd, Level: 3}, {Name: codec.LZ4}, {Name: codec.None}} {
			store := newMemory()
			e := testEpoch(t, testRepo(t, store, keys, c))
			s, err := writeBackup(ctx, e, testLabel, testFiles())
			require.NoError(t, err)
			files, err := readBackup(ctx, e, testLabel)
			require.NoError(t, err)
			require.Equal(t, testFiles(), files)

			require.Equal(t, c.String(), s.Codec)
			require.Equal(t, Full, s.Type)
			require.EqualValues(t, 10, s.Files)
			require.Empty(t, s.References)
			var stored, bytes int64
			for k, b := range contents(t, store) {
				if strings.Contains(k, "/backup/") {
					stored += int64(len(b))
				}
			}
			for _, f := range files {
				bytes += int64(len(f.content))
			}
			require.Equal(t, stored, s.StoredBytes)
			require.Equal(t, bytes, s.Bytes)
			list, err := e.Backups(ctx)
			require.NoError(t, err)
			require.Equal(t, []Summary{s}, list)

			_, err = e.CreateBackup(ctx, testLabel)
			require.ErrorIs(t, err, ErrExists)
		}
	})
}

func TestManifestHeaderAndEntries(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		e := testEpoch(t, testRepo(t, newMemory(), keys, codec.Codec{}))
		s, err := writeBackup(ctx, e, testLabel, testFiles())
		require.NoError(t, err)
		m, err := e.OpenManifest(ctx, s)
		require.NoError(t, err)
		defer m.Close()
		want := testHeader()
		want.Format, want.Label, want.Type, want.Cluster, want.SystemID = 1, testLabel, Full, "hippo", testSystem
		require.Equal(t, want, m.Header())
		require.Greater(t, len(m.Packs()), 1)
		for range 2 {
			for _, f := range testFiles() {
				got, err := m.Next()
				require.NoError(t, err)
				got.Chunks = nil
				want := fileEntry(f)
				want.BadPages = got.BadPages
				require.Equal(t, want, got)
			}
			_, err = m.Next()
			require.Equal(t, io.EOF, err)
			require.NoError(t, m.Rewind())
		}
	})
}

// One pack is read by many ranges, small and large, also across its end.
func TestPackRanges(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		for _, n := range []int{1, 100, ageChunk, ageChunk + 1, 5*ageChunk + 77} {
			e := testEpoch(t, testRepo(t, newMemory(), keys, codec.Codec{}))
			b, err := e.CreateBackup(ctx, testLabel)
			require.NoError(t, err)
			p, err := b.NewPack(ctx)
			require.NoError(t, err)
			content := compressible(n, 1)
			_, err = p.Append(content)
			require.NoError(t, err)
			require.NoError(t, p.Close())
			require.NoError(t, p.Close())
			refs, err := b.table()
			require.NoError(t, err)
			r, err := e.OpenPack(ctx, refs[0])
			require.NoError(t, err)
			for _, offset := range []int{0, 1, 50, ageChunk - 1, ageChunk, 2*ageChunk + 3, n - 1, n} {
				for _, length := range []int{0, 1, 49, ageChunk, 3 * ageChunk, n - offset} {
					if offset < 0 || length < 0 || offset > n {
						continue
					}
					body, err := r.ReadRange(ctx, int64(offset), int64(length))
					if offset+length > n {
						require.Error(t, err)
						continue
					}
					require.NoError(t, err)
					got, err := io.ReadAll(body)
					require.NoError(t, err, "%d %d %d", n, offset, length)
					require.NoError(t, body.Close())
					require.True(t, bytes.Equal(content[offset:offset+length], got))
				}
			}
			_, err = r.ReadRange(ctx, -1, 1)
			require.Error(t, err)
		}
	})
}

// Whatever call of the store fails, before it did anything or after it did
// all: a backup that is listed can be read, and one that was reported done is listed.
func TestEveryCallFails(t *testing.T) {
	ctx := context.Background()
	paths := testFiles()
	paths[4].content = paths[4].content[:MaxChunk+100] // it is written hundreds of times
	modes(t, func(t *testing.T, keys *Keys) {
		calls := 0
		run := func(rules ...faulty.Rule) (int, bool) {
			below := newMemory()
			testEpoch(t, testRepo(t, below, keys, codec.Codec{}))
			store := faulty.New(below, rules...)
			_, err := writeBackup(ctx, testRepo(t, store, keys, codec.Codec{}).Epoch(testSystem), testLabel, paths)
			e := testRepo(t, below, keys, codec.Codec{}).Epoch(testSystem)
			list, listErr := e.Backups(ctx)
			require.NoError(t, listErr)
			for _, s := range list {
				files, readErr := readBackup(ctx, e, s.Label)
				require.NoError(t, readErr)
				require.Equal(t, paths, files)
			}
			if err == nil {
				require.Len(t, list, 1)
			}
			return len(store.Calls()), err == nil
		}
		calls, ok := run()
		require.True(t, ok)
		require.GreaterOrEqual(t, calls, 6)
		for k := 1; k <= calls; k++ {
			for _, f := range []faulty.Fault{faulty.Fail, faulty.Deny, faulty.Truncate, faulty.LoseAnswer} {
				run(faulty.Rule{At: k, Fault: f, Bytes: 100})
			}
			// The store goes away for good, so that Abort fails too.
			for later := k; later <= calls+2; later += 3 {
				run(faulty.Rule{At: k, Fault: faulty.LoseAnswer}, faulty.Rule{At: later + 1, Fault: faulty.Fail})
			}
		}
	})
}

func TestAbort(t *testing.T) {
	store := newMemory()
	e := testEpoch(t, testRepo(t, store, nil, codec.Codec{}))
	before := contents(t, store)
	ctx, cancel := context.WithCancel(context.Background())
	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	done, err := b.NewPack(ctx)
	require.NoError(t, err)
	_, err = done.Append([]byte("stored"))
	require.NoError(t, err)
	require.NoError(t, done.Close())
	require.Len(t, contents(t, store), len(before)+2) // the pack, and the lease of the label

	open, err := b.NewPack(ctx)
	require.NoError(t, err)
	_, err = open.Append([]byte("on its way"))
	require.NoError(t, err)
	cancel()
	for err == nil { // the writer learns of it, however full the pipe is
		_, err = open.Append(make([]byte, 100<<10))
	}
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, b.Abort(ctx))
	require.Equal(t, before, contents(t, store))
	require.ErrorIs(t, open.Close(), context.Canceled)
	_, err = b.NewPack(ctx)
	require.Error(t, err)
	_, err = b.Commit(ctx, testHeader(), testSummary())
	require.Error(t, err)
	require.NoError(t, b.Abort(ctx))
}

// Abort ends uploads that nobody closed.
func TestAbortOpenPack(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	e := testEpoch(t, testRepo(t, store, nil, codec.Codec{}))
	before := contents(t, store)
	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	p, err := b.NewPack(ctx)
	require.NoError(t, err)
	_, err = p.Append([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, b.Abort(ctx))
	require.ErrorIs(t, p.Close(), errAborted)
	require.Equal(t, before, contents(t, store))
}

// However many packs a backup has, it keeps nothing of those that are stored but
// their places.
func TestStoredPacksAreForgotten(t *testing.T) {
	ctx := context.Background()
	e := testEpoch(t, testRepo(t, newMemory(), nil, codec.Codec{}))
	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	for range 20 {
		p, err := b.NewPack(ctx)
		require.NoError(t, err)
		_, err = p.Append([]byte("x"))
		require.NoError(t, err)
		require.Len(t, b.active, 1)
		require.NoError(t, p.Close())
		require.Empty(t, b.active)
	}
	require.NoError(t, b.Abort(ctx))
}

// Two that took the same label: one wins, the other harms nothing.
func TestRacingBackups(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		e := testEpoch(t, testRepo(t, store, keys, codec.Codec{}))
		type result struct{ err error }
		results := make(chan result)
		for range 4 {
			go func() {
				_, err := writeBackup(ctx, e, testLabel, testFiles())
				results <- result{err}
			}()
		}
		won := 0
		for range 4 {
			if r := <-results; r.err == nil {
				won++
			} else {
				require.ErrorIs(t, r.err, ErrExists)
			}
		}
		require.LessOrEqual(t, won, 1)
		list, err := e.Backups(ctx)
		require.NoError(t, err)
		require.Len(t, list, won)
		if won == 1 {
			files, err := readBackup(ctx, e, testLabel)
			require.NoError(t, err)
			require.Equal(t, testFiles(), files)
		}
	})
}

func TestCommitRefuses(t *testing.T) {
	ctx := context.Background()
	e := testEpoch(t, testRepo(t, newMemory(), nil, codec.Codec{}))
	for name, change := range map[string]func(b *BackupWriter, p *PackWriter, f *FileEntry, h *Header, s *Summary){
		"open pack":           func(_ *BackupWriter, p *PackWriter, _ *FileEntry, _ *Header, _ *Summary) { p.closed = true },
		"chunk beyond pack":   func(_ *BackupWriter, _ *PackWriter, f *FileEntry, _ *Header, _ *Summary) { f.Chunks[0].Offset = 100 },
		"summary without LSN": func(_ *BackupWriter, _ *PackWriter, _ *FileEntry, _ *Header, s *Summary) { s.StartLSN = 0 },
		"stop before start":   func(_ *BackupWriter, _ *PackWriter, _ *FileEntry, _ *Header, s *Summary) { s.StopLSN = 1 },
		"tablespace unknown": func(b *BackupWriter, _ *PackWriter, _ *FileEntry, _ *Header, _ *Summary) {
			b.spool.rules.collected[1] = "/x"
		},
		"summary without size": func(_ *BackupWriter, _ *PackWriter, _ *FileEntry, _ *Header, s *Summary) { s.SegmentSize = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			b, err := e.CreateBackup(ctx, testLabel)
			require.NoError(t, err)
			p, err := b.NewPack(ctx)
			require.NoError(t, err)
			_, err = p.Append([]byte("0123456789"))
			require.NoError(t, err)
			f := FileEntry{Path: "x", Size: 5, Chunks: []Chunk{{Plain: 5, Stored: 10}}}
			h, s := testHeader(), testSummary()
			require.NoError(t, b.AddFile(FileEntry{Path: "a", Type: Directory}))
			change(b, p, &f, &h, &s)
			require.NoError(t, b.AddFile(f))
			require.NoError(t, p.Close())
			_, err = b.Commit(ctx, h, s)
			require.Error(t, err)
			p.closed = false
			require.NoError(t, b.Abort(ctx))
			_, err = e.Summary(ctx, testLabel)
			require.ErrorIs(t, err, ErrNotFound)
		})
	}
}

func TestUsePack(t *testing.T) {
	ctx := context.Background()
	e := testEpoch(t, testRepo(t, newMemory(), nil, codec.Codec{}))
	_, err := writeBackup(ctx, e, testLabel, testFiles())
	require.NoError(t, err)
	full, err := e.Summary(ctx, testLabel)
	require.NoError(t, err)
	m, err := e.OpenManifest(ctx, full)
	require.NoError(t, err)
	defer m.Close()

	label, err := NewLabel(Incremental, testLabel, testTime.Add(time.Hour))
	require.NoError(t, err)
	b, err := e.CreateBackup(ctx, label)
	require.NoError(t, err)
	for {
		f, err := m.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		for i, c := range f.Chunks {
			f.Chunks[i].Pack, err = b.UsePack(m.Packs()[c.Pack])
			require.NoError(t, err)
		}
		require.NoError(t, b.AddFile(f))
	}
	s := testSummary()
	s.Parent = testLabel
	s.Stop = s.Stop.Add(time.Hour)
	s, err = b.Commit(ctx, testHeader(), s)
	require.NoError(t, err)
	require.Equal(t, []Label{testLabel}, s.References)
	files, err := readBackup(ctx, e, label)
	require.NoError(t, err)
	require.Equal(t, testFiles(), files)
	_, err = b.UsePack(PackRef{Label: label})
	require.Error(t, err)
}

// Every flipped byte of every object of a backup is found, and the object named.
func TestFlippedBytesInBackup(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		e := testEpoch(t, testRepo(t, store, keys, codec.Codec{}))
		files := testFiles()
		files[4].content = compressible(9000, 5) // fewer bytes, each of them flipped
		_, err := writeBackup(ctx, e, testLabel, files)
		require.NoError(t, err)
		read := func() error {
			r := testRepo(t, store, keys, codec.Codec{})
			if _, err := r.Marker(ctx); err != nil {
				return err
			}
			if _, err := r.Epochs(ctx); err != nil {
				return err
			}
			_, err := readBackup(ctx, r.Epoch(testSystem), testLabel)
			return err
		}
		require.NoError(t, read())
		for key, b := range contents(t, store) {
			for i := 0; i < len(b); i += step(i, len(b)) {
				bad := bytes.Clone(b)
				bad[i] ^= 1 << (i % 8)
				put(t, store, key, bad)
				var damage *DamageError
				err := read()
				require.ErrorAs(t, err, &damage, "%s byte %d of %d: %v", key, i, len(b), err)
				require.ErrorIs(t, err, ErrIntegrity)
				require.Equal(t, key, damage.Key)
			}
			for _, n := range []int{0, len(b) - 1} {
				put(t, store, key, b[:n])
				require.ErrorIs(t, read(), ErrIntegrity, "%s cut at %d", key, n)
			}
			if strings.Contains(key, "/backup/") {
				require.NoError(t, store.Delete(ctx, key))
				require.ErrorIs(t, read(), ErrIntegrity, "%s missing", key)
			}
			put(t, store, key, b)
		}
	})
}

// step samples large objects: all of their first bytes, then some.
func step(i, n int) int {
	if i < 1000 || n < 3000 {
		return 1
	}
	return max(1, n/997)
}

// A transfer that breaks is not damage.
func TestBrokenTransferIsNotDamage(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		below := newMemory()
		e := testEpoch(t, testRepo(t, below, keys, codec.Codec{}))
		_, err := writeBackup(ctx, e, testLabel, testFiles())
		require.NoError(t, err)
		putWAL(t, e, segment(1, 3), compressible(1<<20, 1), nil)
		store := faulty.New(below)
		e = testRepo(t, store, keys, codec.Codec{}).Epoch(testSystem)
		read := func() error {
			_, err1 := readBackup(ctx, e, testLabel)
			_, err2 := e.WALHead(ctx, segment(1, 3))
			_, err3 := e.GetWAL(ctx, segment(1, 3), io.Discard)
			return errors.Join(err1, err2, err3)
		}
		require.NoError(t, read())
		calls := len(store.Calls())
		for k := 1; k <= calls; k++ {
			for _, f := range []faulty.Fault{faulty.Fail, faulty.Truncate} {
				e = testRepo(t, faulty.New(below, faulty.Rule{At: k, Fault: f, Bytes: 10}), keys, codec.Codec{}).Epoch(testSystem)
				err := read()
				require.ErrorIs(t, err, faulty.ErrFault, "call %d %s", k, f)
				require.NotErrorIs(t, err, ErrIntegrity, "call %d %s", k, f)
			}
		}
	})
}

// slowStore reads a body in small pieces, to have uploads overlap.
type slowStore struct{ object.Store }

func (s slowStore) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	return s.Store.Put(ctx, key, io.MultiReader(body), o)
}

func TestParallelPacks(t *testing.T) {
	ctx := context.Background()
	e := testEpoch(t, testRepo(t, slowStore{newMemory()}, nil, codec.Codec{}))
	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	errs := make(chan error)
	for i := range 8 {
		go func() {
			p, err := b.NewPack(ctx)
			for range 50 {
				if err == nil {
					_, err = p.Append(compressible(100<<10, uint64(i)))
				}
			}
			errs <- errors.Join(err, p.Close())
		}()
	}
	for range 8 {
		require.NoError(t, <-errs)
	}
	refs, err := b.table()
	require.NoError(t, err)
	require.Len(t, refs, 8)
	for _, ref := range refs {
		require.EqualValues(t, 5000<<10, ref.Size, fmt.Sprint(ref.Number))
	}
}
