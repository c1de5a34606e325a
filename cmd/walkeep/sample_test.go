package main

import (
	"bytes"
	"context"
	"hash/crc32"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/dial"
)

// The sample cluster has segments of 1 MiB, so that segment n begins at
// n << 20. It was promoted in segment 5, its archive has a gap, and it has a
// full backup before and a differential one after the promotion.
const (
	sampleSystem  pg.SystemID    = 7310000000000000001
	sampleSize    pg.SegmentSize = 1 << 20
	sampleHistory                = "1\t0/580000\tno recovery target specified\n"
)

var sampleStart = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

func storeSample(ts *testscript.TestScript, _ bool, args []string) {
	cfg, err := config.Load(ts.Getenv("WALKEEP_CONFIG"))
	ts.Check(err)
	for _, name := range args {
		c, ok := cfg.Repo(name)
		if !ok {
			ts.Fatalf("no repository %s", name)
		}
		ctx := context.Background()
		r, err := dial.Open(ctx, c, dial.Options{Cluster: cfg.Cluster, Clock: func() time.Time { return sampleStart }})
		ts.Check(err)
		ts.Check(storeSampleIn(ctx, r))
		ts.Check(r.Store().Close())
	}
}

func storeSampleIn(ctx context.Context, r *repo.Repository) error {
	if err := r.Init(ctx); err != nil {
		return err
	}
	e, err := r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: sampleSystem, PGMajor: 15, SegmentSize: sampleSize})
	if err != nil {
		return err
	}
	for _, run := range []struct {
		t           pg.Timeline
		first, last pg.SegmentNo
	}{{1, 1, 5}, {2, 5, 7}, {2, 10, 11}} {
		for n := run.first; n <= run.last; n++ {
			if err := storeSampleSegment(ctx, e, run.t, n); err != nil {
				return err
			}
		}
	}
	history := []byte(sampleHistory)
	head := sampleHead(2, history)
	head.Kind, head.Name = repo.WALKind(pg.FileHistory), pg.HistoryName(2)
	if err := e.PutWAL(ctx, head, bytes.NewReader(history)); err != nil {
		return err
	}
	full, err := storeSampleBackup(ctx, e, repo.Summary{
		Type: repo.Full, Start: sampleStart, Stop: sampleStart.Add(95 * time.Second),
		StartLSN: 0x200028, StopLSN: 0x300100, Timeline: 1, Node: "pg-0",
	})
	if err != nil {
		return err
	}
	_, err = storeSampleBackup(ctx, e, repo.Summary{
		Type: repo.Differential, Parent: full, Start: sampleStart.Add(24 * time.Hour), Stop: sampleStart.Add(24*time.Hour + 7*time.Second),
		StartLSN: 0x600028, StopLSN: 0x700100, Timeline: 2, Node: "pg-1", FromStandby: true,
		Annotations: map[string]string{"reason": "before the migration", "by": "ann"},
	})
	return err
}

func sampleHead(t pg.Timeline, content []byte) repo.WALHead {
	sum := wal.DigestOf(content)
	return repo.WALHead{
		SystemID: sampleSystem, Timeline: t, PGMajor: 15,
		XXH3: sum.String(), Length: int64(len(content)),
	}
}

// storeSampleSegment stores a segment whose content is made up, with a commit
// at as many minutes after the start of the sample as its number says.
func storeSampleSegment(ctx context.Context, e *repo.Epoch, t pg.Timeline, n pg.SegmentNo) error {
	stream := waltest.New(sampleSystem)
	stream.Timeline, stream.First = t, n
	stream.Fill(0)
	_, content := stream.Segment(0)
	head := sampleHead(t, content)
	head.Kind, head.Name = repo.WALKind(pg.FileSegment), string(sampleSize.Name(t, n))
	head.SegmentSize, head.Complete = sampleSize, true
	head.Start, head.ValidTo = sampleSize.Start(n), sampleSize.Start(n+1)
	at := sampleStart.Add(time.Duration(n) * time.Minute)
	if t == 2 {
		at = at.Add(24 * time.Hour)
	}
	head.FirstCommit, head.LastCommit, head.Commits = &at, &at, 1
	if n == 5 { // on both timelines: the successor begins with a copy
		head.RestorePoints = []repo.RestorePoint{{Name: "before release", LSN: 0x520060, Time: at}}
	}
	return e.PutWAL(ctx, head, bytes.NewReader(content))
}

func storeSampleBackup(ctx context.Context, e *repo.Epoch, s repo.Summary) (repo.Label, error) {
	label, err := repo.NewLabel(s.Type, s.Parent, s.Start)
	if err != nil {
		return "", err
	}
	s.PGVersion, s.SegmentSize, s.WalkeepVersion = 150013, sampleSize, "test"
	b, err := e.CreateBackup(ctx, label)
	if err != nil {
		return "", err
	}
	p, err := b.NewPack(ctx)
	if err != nil {
		return "", err
	}
	enc, err := codec.NewEncoder(codec.Codec{Name: codec.None})
	if err != nil {
		return "", err
	}
	for _, f := range sampleFiles(s) {
		if f.Type == repo.RegularFile && f.Size > 0 {
			if err := storeSampleFile(p, enc, &f); err != nil {
				return "", err
			}
		}
		if err := b.AddFile(f); err != nil {
			return "", err
		}
	}
	if err := p.Close(); err != nil {
		return "", err
	}
	_, err = b.Commit(ctx, repo.Header{
		Parent: s.Parent, PGVersion: s.PGVersion, SegmentSize: sampleSize, Timeline: s.Timeline,
		StartLSN: s.StartLSN, StopLSN: s.StopLSN, Start: s.Start, Stop: s.Stop, FromStandby: s.FromStandby,
		DataChecksums: true, BlockSize: 8192, PGData: "/pgdata/pg15",
		Tablespaces: []repo.Tablespace{{OID: 16400, Path: "/space/fast"}},
	}, s)
	return label, err
}

func storeSampleFile(p *repo.PackWriter, enc *codec.Encoder, f *repo.FileEntry) error {
	content := make([]byte, f.Size) // pages of zeroes are good ones
	switch {
	case f.Path == "global/pg_control":
		copy(content, waltest.Control(sampleSystem, pg.StateProduction, 1, sampleSize))
	case f.Size < pg.PageSize:
		content = bytes.Repeat([]byte{1}, int(f.Size))
	}
	f.CRC = crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
	frame, chunk, err := repo.EncodeChunk(enc, nil, content)
	if err != nil {
		return err
	}
	chunk.Pack = p.ID()
	if chunk.Offset, err = p.Append(frame); err != nil {
		return err
	}
	f.Chunks = []repo.Chunk{chunk}
	return nil
}

// sampleFiles are some of the paths of a data directory.
func sampleFiles(s repo.Summary) []repo.FileEntry {
	directory := func(path string) repo.FileEntry {
		return repo.FileEntry{Path: path, Type: repo.Directory, Mode: 0o700, MTime: s.Start}
	}
	file := func(path string, size int64) repo.FileEntry {
		return repo.FileEntry{Path: path, Mode: 0o600, MTime: s.Start, Size: size, Detect: "whole"}
	}
	damaged := file("base/16384/16385", 64<<13)
	if s.Type == repo.Differential {
		damaged.BadPages = []uint32{3, 17}
	}
	link := repo.FileEntry{Path: "pg_tblspc/16400", Type: repo.Symlink, Mode: 0o777, MTime: s.Start, Link: "/space/fast"}
	return []repo.FileEntry{
		directory("."), file("PG_VERSION", 3),
		directory("base"),
		directory("base/1"), file("base/1/1259", 11<<13), file("base/1/PG_VERSION", 3),
		directory("base/16384"), file("base/16384/\x1b[2J", 8192), damaged,
		directory("global"), file("global/1262", 8192),
		directory("pg_tblspc"), link,
		directory("pg_tblspc/16400/PG_15_202209061"), directory("pg_tblspc/16400/PG_15_202209061/16384"),
		file("pg_tblspc/16400/PG_15_202209061/16384/16390", 100<<13),
		file("backup_label", 226), file("global/pg_control", 8192),
	}
}
