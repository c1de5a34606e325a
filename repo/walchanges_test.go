package repo

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo/codec"
)

func testChanges(blocks int) *pg.BlockChanges {
	c := &pg.BlockChanges{
		Relations: map[pg.RelFile]*pg.RelChanges{
			{Tablespace: 1663, Database: 5, Number: 16384}: {Blocks: []uint32{0, 7, 8, 1<<32 - 1}},
			{Tablespace: 1663, Database: 5}:                {Limited: true},
			{Tablespace: 1664, Number: 1262}:               {Limited: true, Limit: 3, Blocks: []uint32{9}},
		},
		Open: &pg.OpenRecord{LSN: 0x1000, Data: []byte("open")},
		Rest: &pg.RecordRest{Length: 9, Data: []byte("rest")},
	}
	for n := range blocks {
		rc := c.Relations[pg.RelFile{Tablespace: 1663, Database: 5, Number: 16384}]
		rc.Blocks = append(rc.Blocks[:len(rc.Blocks)-1], uint32(n)*3+100, 1<<32-1)
	}
	return c
}

func TestWALChanges(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		store := newMemory()
		e := testEpoch(t, testRepo(t, store, keys, codec.Codec{}))
		content := bytes.Repeat([]byte("wal "), 1<<10)
		for i, c := range []*pg.BlockChanges{nil, testChanges(0), testChanges(100_000), {Unknown: "why", Minimal: true, Relations: map[pg.RelFile]*pg.RelChanges{}}} {
			file := segment(1, pg.SegmentNo(i+1))
			head := testHead(file, content)
			head.Changes = c
			require.NoError(t, e.PutWAL(ctx, head, bytes.NewReader(content)))
			got, err := e.WALChanges(ctx, pg.SegmentName(file.Name))
			if c == nil {
				require.ErrorIs(t, err, ErrNoChanges)
			} else {
				require.NoError(t, err)
				require.Equal(t, c, got)
			}
			_, err = e.WALHead(ctx, file)
			require.NoError(t, err)
			var b bytes.Buffer
			_, err = e.GetWAL(ctx, file, &b)
			require.NoError(t, err)
			digest := wal.DigestOf(b.Bytes())
			require.Equal(t, head.XXH3, digest.String())
		}
		_, err := e.WALChanges(ctx, pg.SegmentName(segment(1, 99).Name))
		require.ErrorIs(t, err, ErrNotFound)
	})
}

func FuzzWALChanges(f *testing.F) {
	b, err := encodeChanges(testChanges(3))
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChanges(b)
		if err != nil {
			return
		}
		again, err := encodeChanges(c)
		require.NoError(t, err)
		same, err := decodeChanges(again)
		require.NoError(t, err)
		require.Equal(t, c, same)
	})
}
