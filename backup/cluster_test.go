package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
)

const (
	testSystem  = pg.SystemID(7400000000000000001)
	testStart   = pg.LSN(0x3000028)
	testStop    = pg.LSN(0x5000100)
	testCatalog = 202209061
)

// controlFile is the pg_control of a running 15 with page checksums.
func controlFile() []byte {
	b := make([]byte, 8192)
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	put64 := func(at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	put64(0, uint64(testSystem))
	put(8, 1300)
	put(12, testCatalog)
	put(16, uint32(pg.StateProduction))
	put64(40, uint64(testStart))
	put(48, 1)
	put(52, 1)
	put(204, 8)
	put64(208, 0x4132D68700000000)
	put(216, 8192)
	put(220, 131072)
	put(224, 8192)
	put(228, uint32(pg.DefaultSegmentSize))
	put(252, 1)
	put(288, crc32.Checksum(b[:288], castagnoli))
	return b
}

// cluster is a data directory that looks like one, and a server that does not
// exist.
type cluster struct {
	t     testing.TB
	dir   string
	epoch []*repo.Epoch // where the "archiver" puts WAL

	mu       sync.Mutex // guards the rest
	inBackup bool
	stops    int
	startErr error
	stopErr  error
	noWAL    bool
	moved    pg.LSN    // how far WAL has come since the first backup
	now      time.Time // starts and ends of backups are a second apart
	tsMap    []byte
}

func newCluster(t testing.TB) *cluster {
	return newClusterIn(t, t.TempDir())
}

func newClusterIn(t testing.TB, dir string) *cluster {
	c := &cluster{t: t, dir: dir, now: time.Unix(1763773199, 0)}
	for _, d := range []string{"base/5", "base/1", "global", "pg_wal/archive_status", "pg_tblspc", "pg_xact"} {
		require.NoError(t, os.MkdirAll(filepath.Join(c.dir, d), 0o700))
	}
	c.write("PG_VERSION", []byte("15\n"))
	c.write("postmaster.pid", fmt.Appendf(nil, "1\n%s\n1700000000\n5432\n", c.dir))
	c.write("global/pg_control", controlFile())
	c.write("pg_xact/0000", make([]byte, 8192))
	c.write("empty", nil)
	return c
}

func (c *cluster) write(path string, b []byte) {
	c.t.Helper()
	full := filepath.Join(c.dir, path)
	require.NoError(c.t, os.MkdirAll(filepath.Dir(full), 0o700))
	require.NoError(c.t, os.WriteFile(full, b, 0o600))
}

// relation writes pages with right checksums and compressible contents.
func (c *cluster) relation(path string, pages int) {
	c.t.Helper()
	rel, ok := parseRelFile(filepath.Base(path))
	require.True(c.t, ok)
	rng := rand.New(rand.NewPCG(uint64(pages), 7))
	var b []byte
	for n := range pages {
		p := make([]byte, pg.PageSize)
		for i := 24; i < len(p); i += 16 {
			p[i] = byte(rng.Uint32())
		}
		binary.LittleEndian.PutUint64(p, 0)
		binary.LittleEndian.PutUint16(p[14:], 4000)
		binary.LittleEndian.PutUint16(p[8:], pg.PageChecksum(p, rel.segment*131072+uint32(n)))
		b = append(b, p...)
	}
	c.write(path, b)
}

// advance lets the server write some WAL.
func (c *cluster) advance(n pg.LSN) { c.mu.Lock(); c.moved += n; c.mu.Unlock() }

func (c *cluster) start() pg.LSN { c.mu.Lock(); defer c.mu.Unlock(); return testStart + c.moved }

func (c *cluster) stop() pg.LSN { c.mu.Lock(); defer c.mu.Unlock(); return testStop + c.moved }

func (c *cluster) clock() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Second)
	return c.now
}

func (c *cluster) Node() string { return "fake:5432" }

func (c *cluster) Info(ctx context.Context) (server.Info, error) {
	return server.Info{
		Version: 150004, Major: 15, SystemID: testSystem, Timeline: 1, SegmentSize: pg.DefaultSegmentSize,
		BlockSize: 8192, DataDirectory: c.dir, ArchiveMode: "on",
	}, ctx.Err()
}

func (c *cluster) StartBackup(ctx context.Context, label string, fast bool) (server.StartResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.startErr != nil {
		return server.StartResult{}, c.startErr
	}
	c.inBackup = true
	return server.StartResult{LSN: testStart + c.moved, Timeline: 1}, ctx.Err()
}

func (c *cluster) StopBackup(ctx context.Context) (server.StopResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stops++
	if !c.inBackup {
		return server.StopResult{}, server.ErrNoBackup
	}
	c.inBackup = false
	if err := errors.Join(c.stopErr, ctx.Err()); err != nil {
		return server.StopResult{}, err
	}
	if !c.noWAL {
		for _, e := range c.epoch {
			c.archive(e)
		}
	}
	return server.StopResult{LSN: testStop + c.moved, Timeline: 1, LabelFile: []byte("START WAL LOCATION: 0/3000028\n"), TablespaceMap: c.tsMap}, nil
}

// archive puts the WAL of the backup into a repository.
func (c *cluster) archive(e *repo.Epoch) {
	size := pg.DefaultSegmentSize
	for n := size.SegmentOf(testStart + c.moved); n <= size.SegmentOf(testStop+c.moved-1); n++ {
		body := []byte("wal " + fmt.Sprint(n))
		sum := wal.DigestOf(body)
		// An error leaves a hole, as with the real archiver.
		_ = e.PutWAL(context.Background(), repo.WALHead{
			Kind: repo.WALKind(pg.FileSegment), Name: string(size.Name(1, n)), SystemID: testSystem, Timeline: 1,
			SegmentSize: size, PGMajor: 15, XXH3: sum.String(), Length: int64(len(body)),
			Start: size.Start(n), ValidTo: size.Start(n + 1), Complete: true,
		}, bytes.NewReader(body))
	}
}

func (c *cluster) Facts(ctx context.Context) (server.Facts, error) {
	return server.Facts{
		Databases: []server.Database{{OID: 1, Name: "template1", XMin: 700}, {OID: 5, Name: "postgres", XMin: 701}},
		Started:   time.Unix(1700000000, 0),
	}, ctx.Err()
}

func (c *cluster) Archiver(context.Context) (server.Archiver, error) {
	return server.Archiver{Failing: c.noWAL, LastFailed: "000000010000000000000003"}, nil
}

func (c *cluster) Summaries(context.Context) ([]server.Summary, error) { return nil, nil }

func (c *cluster) SummaryBlocks(context.Context, server.Summary, func(server.SummaryBlock)) error {
	return nil
}

func (c *cluster) KeepAlive(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	return ctx, cancel
}
func (c *cluster) CurrentLSN(context.Context) (pg.LSN, error) { return c.stop(), nil }
func (c *cluster) ReplayLSN(context.Context) (pg.LSN, error)  { return c.stop(), nil }

// repository opens a repository on a store.
func repository(t testing.TB, name string, store object.Store, c codec.Codec) *repo.Repository {
	t.Helper()
	r, err := repo.Open(repo.Options{Name: name, Store: store, Codec: c, Cluster: "test", Log: zaptest.NewLogger(t), TempDir: t.TempDir()})
	require.NoError(t, err)
	return r
}

// options for a small backup of the cluster, whose WAL gets archived.
func (c *cluster) options(repos ...*repo.Repository) Options {
	c.epoch = nil
	for _, r := range repos {
		c.epoch = append(c.epoch, r.Epoch(testSystem))
	}
	return Options{
		Repos: repos, Source: Local(c.dir), Server: c, Workers: 2, PackSize: 4 << 20, Log: zaptest.NewLogger(c.t),
		ArchiveTimeout: 200 * time.Millisecond, Clock: c.clock,
	}
}

// readBackup reads a backup by way of repo alone. It checks order and CRCs.
func readBackup(t testing.TB, e *repo.Epoch, label repo.Label) (files map[string][]byte, entries []repo.FileEntry) {
	t.Helper()
	ctx := context.Background()
	s, err := e.Summary(ctx, label)
	require.NoError(t, err)
	m, err := e.OpenManifest(ctx, s)
	require.NoError(t, err)
	defer m.Close()
	dec := codec.NewDecoder()
	files = map[string][]byte{}
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if f.Type == repo.RegularFile {
			files[f.Path] = readEntry(t, e, m.Packs(), dec, f)
		}
		f.Chunks, f.Extents, f.BadPages = nil, nil, slices.Clone(f.BadPages)
		entries = append(entries, f)
	}
	return files, entries
}

func readEntry(t testing.TB, e *repo.Epoch, packs map[int]repo.PackRef, dec *codec.Decoder, f repo.FileEntry) []byte {
	t.Helper()
	ctx := context.Background()
	var chunks [][]byte
	for _, c := range f.Chunks {
		p, err := e.OpenPack(ctx, packs[c.Pack])
		require.NoError(t, err)
		r, err := p.ReadRange(ctx, c.Offset, int64(c.Stored))
		require.NoError(t, err)
		frame, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		plain, err := p.DecodeChunk(dec, nil, frame, c)
		require.NoError(t, err)
		chunks = append(chunks, plain)
	}
	data := make([]byte, 0, f.Size)
	if f.Extents == nil {
		for _, c := range chunks {
			data = append(data, c...)
		}
	}
	for _, x := range f.Extents {
		require.Equal(t, int64(len(data)), x.FileOffset, f.Path)
		data = append(data, chunks[x.Chunk][x.ChunkOffset:x.ChunkOffset+x.Length]...)
	}
	require.Equal(t, f.Size, int64(len(data)), f.Path)
	if !f.CRCUnknown {
		require.Equal(t, f.CRC, crc32.Checksum(data, castagnoli), f.Path)
	}
	return data
}

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
