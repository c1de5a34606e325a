package wal_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/pg/wal/waltest"
)

// blockRecord is the data of a record that names blocks, with an image and
// data for some of them.
func blockRecord(rng *rand.Rand, major int, rel pg.RelFile, blocks []uint32) []byte {
	var headers, data []byte
	for i, n := range blocks {
		flags, size := byte(0x20), rng.IntN(40)
		image := rng.IntN(2) * rng.IntN(8192)
		if image > 0 {
			flags |= 0x10
		}
		if i > 0 {
			flags |= 0x80
		}
		headers = append(headers, byte(i), flags, byte(size), 0)
		if image > 0 {
			info := byte(0x05) // 15 and later: a hole, applied
			if major < 15 {
				info = 0x01
			}
			compressed := rng.IntN(2) == 0
			if compressed && major < 15 {
				info |= 0x02
			} else if compressed {
				info = 0x01 | 0x02 | 0x08
			} else if major >= 15 {
				info = 0x01 | 0x02
			}
			headers = binary.LittleEndian.AppendUint16(headers, uint16(image))
			headers = append(headers, 0, 0, info)
			if compressed {
				headers = append(headers, 100, 0)
			}
		}
		if i == 0 {
			headers = append(headers, files(rel)...)
		}
		headers = binary.LittleEndian.AppendUint32(headers, n)
		for range size + image {
			data = append(data, byte(rng.Uint32()))
		}
	}
	main := rng.IntN(60)
	headers = append(headers, 255, byte(main))
	for range main {
		data = append(data, byte(rng.Uint32()))
	}
	return append(headers, data...)
}

func files(r pg.RelFile) []byte {
	b := binary.LittleEndian.AppendUint32(nil, r.Tablespace)
	b = binary.LittleEndian.AppendUint32(b, r.Database)
	return binary.LittleEndian.AppendUint32(b, r.Number)
}

// What the segments change together is what the records do, wherever the
// borders of segments cut them.
func TestChangesAcrossBorders(t *testing.T) {
	for major := 13; major <= 18; major++ {
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(seed, uint64(major)))
			s := waltest.New(7)
			s.Major = major
			want := map[pg.RelFile]map[uint32]bool{}
			limits := map[pg.RelFile]uint32{}
			const segments = 3
			for n := uint32(0); uint64(s.LSN()) < uint64(s.Size.Start(s.First+segments))+100; n++ {
				rel := pg.RelFile{Tablespace: 1663, Database: 5, Number: 16384 + n%7}
				if rng.IntN(40) == 0 {
					// Truncated to n blocks.
					main := append(binary.LittleEndian.AppendUint32(nil, n), files(rel)...)
					main = append(main, 7, 0, 0, 0)
					s.Append(2, 0x21, 0, waltest.Main(main))
					if old, ok := limits[rel]; !ok || n < old {
						limits[rel] = n
					}
					continue
				}
				blocks := []uint32{n * 3, n*3 + 1, n * 5}[:1+rng.IntN(3)]
				s.Append(10, 0, 700, blockRecord(rng, major, rel, blocks))
				if want[rel] == nil {
					want[rel] = map[uint32]bool{}
				}
				for _, b := range blocks {
					want[rel][b] = true
				}
			}
			var all []*pg.BlockChanges
			for i := range segments + 1 {
				name, b := s.Segment(i)
				r, err := wal.ExamineBytes(b, name, 0, wal.Options{Changes: true})
				require.NoError(t, err)
				require.Equal(t, i < segments, r.Complete, r.StopReason)
				require.Empty(t, r.Changes.Unknown)
				all = append(all, r.Changes)
			}
			for i, c := range all[:segments] {
				if c.Open == nil {
					continue
				}
				require.NotNil(t, all[i+1].Rest)
				joined := &pg.BlockChanges{Relations: map[pg.RelFile]*pg.RelChanges{}}
				wal.CollectRecord(joined, major, append(append([]byte(nil), c.Open.Data...), all[i+1].Rest.Data...))
				require.Empty(t, joined.Unknown)
				all = append(all, joined)
			}
			got, gotLimits := map[pg.RelFile]map[uint32]bool{}, map[pg.RelFile]uint32{}
			for _, c := range all {
				for rel, rc := range c.Relations {
					if rc.Limited {
						if old, ok := gotLimits[rel]; !ok || rc.Limit < old {
							gotLimits[rel] = rc.Limit
						}
					}
					for _, b := range rc.Blocks {
						if got[rel] == nil {
							got[rel] = map[uint32]bool{}
						}
						got[rel][b] = true
					}
				}
			}
			require.Equal(t, want, got)
			require.Equal(t, limits, gotLimits)
		}
	}
}

// Records whose meaning counts.
func TestChangesByMeaning(t *testing.T) {
	rel := pg.RelFile{Tablespace: 1663, Database: 5, Number: 16384}
	u32 := func(list ...uint32) (b []byte) {
		for _, n := range list {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		return b
	}
	limited := func(f pg.RelFile) map[pg.RelFile]*pg.RelChanges {
		return map[pg.RelFile]*pg.RelChanges{f: {Limited: true}}
	}
	dropped := append(make([]byte, 8), u32(1<<0|1<<1|1<<2, 5, 1663, 2, 901, 902, 1, 1663, 5, 16384)...)
	for name, c := range map[string]struct {
		major      int
		rmid, info uint8
		main       []byte
		want       map[pg.RelFile]*pg.RelChanges
		unknown    bool
		minimal    bool
	}{
		"create":                   {15, 2, 0x11, u32(1663, 5, 16384, 0), limited(rel), false, false},
		"create a map":             {15, 2, 0x11, u32(1663, 5, 16384, 2), nil, false, false},
		"truncate a map":           {15, 2, 0x21, u32(3, 1663, 5, 16384, 2), nil, false, false},
		"commit that drops":        {15, 1, 0x81, dropped, limited(rel), false, false},
		"abort that drops":         {13, 1, 0xA1, dropped, limited(rel), false, false},
		"prepared that drops":      {18, 1, 0xB1, dropped, limited(rel), false, false},
		"commit cut off":           {15, 1, 0x81, dropped[:30], nil, true, false},
		"plain commit":             {15, 1, 0x00, make([]byte, 8), nil, false, false},
		"create database 14":       {14, 4, 0x01, u32(5, 1663, 1, 1663), limited(pg.RelFile{Tablespace: 1663, Database: 5}), false, false},
		"drop database 14":         {14, 4, 0x11, u32(5, 1, 1663), limited(pg.RelFile{Tablespace: 1663, Database: 5}), false, false},
		"create database by log":   {15, 4, 0x11, u32(5, 1663), limited(pg.RelFile{Tablespace: 1663, Database: 5}), false, false},
		"create database by files": {17, 4, 0x01, u32(5, 1663, 1, 1663), limited(pg.RelFile{Tablespace: 1663, Database: 5}), false, false},
		"drop database":            {17, 4, 0x21, u32(5, 1, 1663), limited(pg.RelFile{Tablespace: 1663, Database: 5}), false, false},
		"some other database":      {17, 4, 0x31, u32(5, 1, 1663), nil, true, false},
		"minimal":                  {15, 0, 0x60, u32(100, 8, 10, 0, 64, 0, 0), nil, false, true},
		"replica":                  {15, 0, 0x60, u32(100, 8, 10, 0, 64, 1, 0), nil, false, false},
		"special of a heap":        {15, 10, 0x01, u32(1), nil, true, false},
		"custom":                   {17, 128, 0x00, u32(1), nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := waltest.New(7)
			s.Major = c.major
			s.Append(c.rmid, c.info, 7, waltest.Main(c.main))
			s.Switch()
			file, b := s.Segment(0)
			r, err := wal.ExamineBytes(b, file, 0, wal.Options{Changes: true})
			require.NoError(t, err)
			require.True(t, r.Complete)
			require.Equal(t, c.unknown, r.Changes.Unknown != "", r.Changes.Unknown)
			require.Equal(t, c.minimal, r.Changes.Minimal)
			if c.want == nil {
				c.want = map[pg.RelFile]*pg.RelChanges{}
			}
			require.Equal(t, c.want, r.Changes.Relations)
		})
	}
}

func FuzzCollectRecord(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, major := range []int{13, 17} {
		s := waltest.New(7)
		s.Append(10, 0, 7, blockRecord(rng, major, pg.RelFile{Tablespace: 1, Database: 2, Number: 3}, []uint32{1, 2}))
		_, b := s.Written()
		f.Add(major, b[40:])
	}
	f.Fuzz(func(t *testing.T, major int, record []byte) {
		c := &pg.BlockChanges{Relations: map[pg.RelFile]*pg.RelChanges{}}
		wal.CollectRecord(c, major, record)
	})
}

// BenchmarkChanges is what gathering block changes adds to the examination of
// a segment of small records.
func BenchmarkChanges(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := waltest.New(7)
	s.Size = 16 << 20
	for uint64(s.LSN()) < uint64(s.Size.Start(s.First+1)) {
		rel := pg.RelFile{Tablespace: 1663, Database: 5, Number: 16384 + rng.Uint32()%5}
		rec := []byte{0, 0x20, 40, 0}
		rec = append(rec, files(rel)...)
		rec = binary.LittleEndian.AppendUint32(rec, rng.Uint32()%200_000)
		s.Append(10, 0, 7, append(append(rec, 255, 14), make([]byte, 54)...))
	}
	name, segment := s.Segment(0)
	for _, changes := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[changes], func(b *testing.B) {
			b.SetBytes(int64(len(segment)))
			for b.Loop() {
				if _, err := wal.ExamineBytes(segment, name, 0, wal.Options{Changes: changes}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
