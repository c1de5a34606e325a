package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// touch changes one page of a relation's file, as a logged change does.
func (c *cluster) touch(path string, page int, lsn pg.LSN) {
	c.t.Helper()
	rel, ok := parseRelFile(filepath.Base(path))
	require.True(c.t, ok)
	f, err := os.OpenFile(filepath.Join(c.dir, path), os.O_RDWR, 0)
	require.NoError(c.t, err)
	defer f.Close()
	p := make([]byte, pg.PageSize)
	_, err = f.ReadAt(p, int64(page)*pg.PageSize)
	require.NoError(c.t, err)
	p[100]++
	c.stamp(p, lsn, rel.segment*131072+uint32(page))
	_, err = f.WriteAt(p, int64(page)*pg.PageSize)
	require.NoError(c.t, err)
}

// stamp makes a page of it.
func (c *cluster) stamp(p []byte, lsn pg.LSN, block uint32) {
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(p[8:], 0)
	binary.LittleEndian.PutUint16(p[12:], 24)
	binary.LittleEndian.PutUint16(p[14:], 4000)
	binary.LittleEndian.PutUint16(p[16:], pg.PageSize)
	binary.LittleEndian.PutUint16(p[18:], pg.PageSize|4)
	binary.LittleEndian.PutUint16(p[8:], pg.PageChecksum(p, block))
}

// settle makes every page of a relation's file look as if it was written
// before all backups.
func (c *cluster) settle(path string) {
	c.t.Helper()
	full := filepath.Join(c.dir, path)
	st, err := os.Stat(full)
	require.NoError(c.t, err)
	for n := range int(st.Size() / pg.PageSize) {
		c.touch(path, n, 0x2000000)
	}
}

// files is what a backup of the directory must hold.
func (c *cluster) file(path string) []byte {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, path))
	require.NoError(c.t, err)
	return b
}

var settled = []string{"base/5/16384", "base/5/16384.1", "base/5/16400", "base/5/16401", "base/1/1259", "base/1/1260", "base/1/2600"}

func TestIncrementalChain(t *testing.T) {
	ctx := context.Background()
	c, _ := small(t)
	for _, p := range settled {
		c.settle(p)
	}
	one := repository(t, "repo1", memory.New(), codec.Default())
	two := repository(t, "repo2", memory.New(), codec.Codec{Name: codec.LZ4})
	run := func(kind repo.BackupType, repos ...*repo.Repository) Result {
		t.Helper()
		o := c.options(repos...)
		o.Type = kind
		result, err := Run(ctx, o)
		require.NoError(t, err)
		for i, r := range repos {
			files, _ := readBackup(t, r.Epoch(testSystem), result.Repos[i].Summary.Label)
			for _, p := range append(settled, "base/1/2601_fsm", "pg_xact/0000") {
				require.True(t, bytes.Equal(c.file(p), files[p]), p)
			}
		}
		return result
	}
	full := run(repo.Incremental, one) // nothing to build on
	require.Equal(t, repo.Full, full.Repos[0].Summary.Type)
	require.Len(t, full.Repos[0].Notes, 1)

	c.advance(0x2100000)
	first := run(repo.Incremental, one).Repos[0].Summary
	require.Equal(t, repo.Incremental, first.Type)
	require.Equal(t, full.Label, first.Parent)
	require.Equal(t, []repo.Label{full.Label}, first.References)
	require.Equal(t, full.Repos[0].Summary.Bytes, first.Bytes)

	// Changed pages, one of them at a file's end, and a file that grew.
	c.advance(0x2100000)
	at := c.start() + 100
	c.touch("base/5/16384", 0, at)
	c.touch("base/5/16384", 200, at)
	c.touch("base/5/16384", 2*rangeSize/pg.PageSize+199, at)
	c.touch("base/1/1259", 16, at)
	grown := append(c.file("base/5/16401"), make([]byte, pg.PageSize)...)
	c.write("base/5/16401", grown)
	require.NoError(t, os.Truncate(filepath.Join(c.dir, "base/5/16384.1"), 2*pg.PageSize))
	second := run(repo.Incremental, one, two)
	require.Equal(t, repo.Full, second.Repos[1].Summary.Type, "each repository has its own parent")
	require.Equal(t, first.Label, second.Repos[0].Summary.Parent)
	require.ElementsMatch(t, []repo.Label{full.Label}, second.Repos[0].Summary.References)
	require.Less(t, second.Repos[0].Summary.StoredBytes, second.Repos[1].Summary.StoredBytes/4)
	_, entries := readBackup(t, one.Epoch(testSystem), second.Repos[0].Summary.Label)
	detect := map[string]string{}
	for _, e := range entries {
		detect[e.Path] = e.Detect
	}
	require.Equal(t, "scan", detect["base/5/16384"])
	require.Equal(t, "whole", detect["base/1/2601_vm"])
	require.Equal(t, "whole", detect["PG_VERSION"])

	c.advance(0x2100000)
	diff := run(repo.Differential, one, two)
	require.Equal(t, full.Label, diff.Repos[0].Summary.Parent)
	require.Equal(t, second.Repos[1].Summary.Label, diff.Repos[1].Summary.Parent)
	require.Equal(t, repo.Differential, diff.Repos[0].Summary.Type)
}

// A chunk of which little is used is not referred to for ever.
func TestWornOutChunks(t *testing.T) {
	ctx := context.Background()
	c := newCluster(t)
	const path, pages = "base/5/16384", 3 * chunkSize / pg.PageSize
	c.relation(path, pages)
	c.settle(path)
	r := repository(t, "repo1", memory.New(), codec.Default())
	o := c.options(r)
	_, err := Run(ctx, o)
	require.NoError(t, err)
	o.Type = repo.Incremental
	for n := range 40 {
		c.advance(0x2100000)
		for page := n * 13 % pages; page < n*13%pages+13 && page < pages; page++ {
			c.touch(path, page, c.start()+8)
		}
		result, err := Run(ctx, o)
		require.NoError(t, err)
		e := r.Epoch(testSystem)
		files, _ := readBackup(t, e, result.Label)
		require.True(t, bytes.Equal(c.file(path), files[path]))
		m, err := e.OpenManifest(ctx, result.Repos[0].Summary)
		require.NoError(t, err)
		for {
			f, err := m.Next()
			require.NoError(t, err)
			if f.Path != path {
				continue
			}
			var stored int64
			for _, ch := range f.Chunks {
				stored += int64(ch.Plain)
			}
			require.Less(t, stored, staleShare*f.Size+chunkSize)
			break
		}
		require.NoError(t, m.Close())
	}
}
