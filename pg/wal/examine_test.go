package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/pg/wal/waltest"
)

const cluster pg.SystemID = 7400000000000000001

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

func examine(t *testing.T, name pg.SegmentName, b []byte) wal.Report {
	t.Helper()
	r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{SystemID: cluster})
	require.NoError(t, err)
	require.Equal(t, wal.DigestOf(b), r.Digest)
	require.Equal(t, int64(len(b)), r.Length)
	return r
}

// full is a stream of which segments 0 and 1 are full.
func full() *waltest.Stream {
	s := waltest.New(cluster)
	s.Noise(10)
	s.Fill(1)
	return s
}

func TestCompleteSegments(t *testing.T) {
	for major := 13; major <= 18; major++ {
		s := waltest.New(cluster)
		s.Major = major
		s.Commit(700, noon)
		s.Noise(500)
		s.Abort(702, noon.Add(time.Hour))
		s.Commit(701, noon.Add(-time.Minute))
		point := s.RestorePoint("before the change", noon)
		s.Fill(1)

		name, b := s.Segment(0)
		r := examine(t, name, b)
		require.True(t, r.Complete)
		require.False(t, r.Switched)
		require.Equal(t, major, r.Major)
		require.Equal(t, cluster, r.SystemID)
		require.Equal(t, pg.SegmentSize(1<<20), r.SegmentSize)
		require.Equal(t, pg.LSN(3<<20), r.Start)
		require.Equal(t, pg.LSN(4<<20), r.ValidTo)
		require.Equal(t, 2, r.Commits)
		require.Equal(t, noon.Add(-time.Minute), r.FirstCommit)
		require.Equal(t, noon, r.LastCommit)
		require.Equal(t, uint32(700), r.MinXID)
		require.Equal(t, uint32(702), r.MaxXID)
		require.Equal(t, []wal.RestorePoint{{Name: "before the change", LSN: point, Time: noon}}, r.RestorePoints)
		require.Equal(t, r.Digest, r.RecordsDigest)

		// It begins with the rest of a record.
		name, b = s.Segment(1)
		require.True(t, examine(t, name, b).Complete)
	}
}

// The reader's way of handing out bytes must not matter.
func TestExamineAnyReader(t *testing.T) {
	name, b := full().Segment(0)
	want := examine(t, name, b)
	for _, r := range []io.Reader{iotest.HalfReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
		got, err := wal.Examine(r, name, 1<<20, wal.Options{})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	broken := errors.New("broken")
	_, err := wal.Examine(io.MultiReader(bytes.NewReader(b[:300000]), iotest.ErrReader(broken)), name, 0, wal.Options{})
	require.ErrorIs(t, err, broken)
}

func TestSwitch(t *testing.T) {
	s := waltest.New(cluster)
	s.Noise(700)
	end := s.Switch()
	s.Commit(1, noon)
	name, b := s.Segment(0)
	r := examine(t, name, b)
	require.True(t, r.Complete)
	require.True(t, r.Switched)
	require.Equal(t, end, r.ValidTo)
	require.Equal(t, wal.DigestOf(b[:end-r.Start]), r.RecordsDigest)

	// Other padding: leftovers of an older segment.
	old := waltest.New(cluster)
	old.First = 1
	old.Fill(0)
	_, older := old.Segment(0)
	other := append(append([]byte(nil), b[:end-r.Start]...), older[end-r.Start:]...)
	r2 := examine(t, name, other)
	require.True(t, r2.Complete)
	require.Equal(t, r.RecordsDigest, r2.RecordsDigest)
	require.NotEqual(t, r.Digest, r2.Digest)

	// Cut in the padding: all records, but no server takes such a file.
	r3, err := wal.Examine(bytes.NewReader(b[:900000]), name, 0, wal.Options{})
	require.NoError(t, err)
	require.False(t, r3.Complete)
	require.Contains(t, r3.StopReason, "900000 of 1048576")
}

// The switch record's last 16, or 8, bytes can lie in the next segment, which
// then holds nothing else.
func TestSwitchAcrossSegments(t *testing.T) {
	for _, in := range []int{8, 16} {
		s := waltest.New(cluster)
		s.Fill(0)
		// Fill segment 1 up to the last bytes.
		end := int(s.Size.Start(5))
		for end-int(s.LSN()) > 250 {
			s.Append(10, 0, 0, waltest.Main(make([]byte, 100)))
		}
		s.Append(10, 0, 0, waltest.Main(make([]byte, end-in-int(s.LSN())-24-2)))
		require.Equal(t, pg.LSN(end-in), s.LSN())
		s.Switch()
		name, b := s.Segment(2)
		r := examine(t, name, b)
		require.True(t, r.Complete, "%d", in)
		require.True(t, r.Switched)
		name, b = s.Segment(1)
		require.True(t, examine(t, name, b).Complete)
	}
}

func TestEndsEarly(t *testing.T) {
	s := waltest.New(cluster)
	s.Noise(1000)
	old := waltest.New(cluster)
	old.First = 1
	old.Fill(0)
	_, older := old.Segment(0)
	end := int(s.LSN() - s.Size.Start(3))

	name, zeroes := s.Segment(0)
	recycled := append(append([]byte(nil), zeroes[:end]...), older[end:]...)
	// A primary writes whole pages.
	pages := (end + 8191) / 8192 * 8192
	recycledPages := append(append([]byte(nil), zeroes[:pages]...), older[pages:]...)
	for i, b := range [][]byte{zeroes, recycled, recycledPages} {
		r := examine(t, name, b)
		require.False(t, r.Complete, i)
		require.Equal(t, s.LSN(), r.ValidTo, i)
		require.NotEmpty(t, r.StopReason)
	}

	// Torn anywhere: never damage, never beyond what is there, and no record
	// that is there is missed.
	name, whole := full().Segment(0)
	var ends []pg.LSN
	_, err := wal.Examine(bytes.NewReader(whole), name, 0, wal.Options{Visit: func(r *wal.Record) error { ends = append(ends, r.End); return nil }})
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		n := longHeader + rnd.IntN(len(whole)-longHeader)
		for _, rest := range [][]byte{make([]byte, len(whole)), older} {
			b := append(append([]byte(nil), whole[:n]...), rest[n:]...)
			r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{})
			require.NoError(t, err, "torn at %d", n)
			if r.Complete {
				require.Greater(t, n, len(whole)-8192)
				continue
			}
			want := r.Start
			for _, e := range ends {
				if e <= r.Start+pg.LSN(n) {
					want = e
				}
			}
			// The last record's alignment may be what was torn off.
			require.GreaterOrEqual(t, r.ValidTo, want)
			require.Less(t, r.ValidTo, r.Start+pg.LSN(n)+8)
		}
	}
}

const longHeader = 40

// A flipped bit in the records of a full segment is found wherever it is, save
// in the record that nothing follows, because it continues in the next segment.
func TestFlippedBits(t *testing.T) {
	name, b := full().Segment(0)
	var last, lastEnd pg.LSN
	covered := make([]bool, len(b))
	_, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{Visit: func(r *wal.Record) error {
		last, lastEnd = r.LSN, r.End
		return nil
	}})
	require.NoError(t, err)
	start := pg.LSN(3 << 20)
	for i := range covered {
		covered[i] = i < int(last-start)
	}
	require.Greater(t, lastEnd, last)
	rnd := rand.New(rand.NewPCG(7, 8))
	found, harmless := 0, 0
	for range 3000 {
		at := rnd.IntN(len(b))
		if !covered[at] {
			continue
		}
		bit := byte(1) << rnd.IntN(8)
		b[at] ^= bit
		r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{SystemID: cluster})
		b[at] ^= bit
		if err == nil {
			// Alignment and padding bytes carry nothing: the records are the same.
			require.True(t, r.Complete, "byte %d", at)
			harmless++
			continue
		}
		found++
		var damaged *wal.DamagedError
		if errors.As(err, &damaged) {
			require.LessOrEqual(t, damaged.At, start+pg.LSN(at), "byte %d", at)
			require.LessOrEqual(t, r.ValidTo, damaged.At)
		} else {
			require.Less(t, at, longHeader, "byte %d: %v", at, err)
		}
	}
	require.Greater(t, found, 2500)
	require.Less(t, harmless, 150)
}

// Damage on the last page, where no page follows that would tell.
func TestFlippedBitsOnLastPage(t *testing.T) {
	s := waltest.New(cluster)
	for s.LSN() < s.Size.Start(4) {
		s.Append(10, 0, 0, waltest.Main(bytes.Repeat([]byte{7}, 100)))
	}
	name, b := s.Segment(0)
	for at := len(b) - 8000; at < len(b)-400; at += 11 {
		b[at] ^= 0x80
		r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{})
		b[at] ^= 0x80
		if err == nil {
			require.True(t, r.Complete, "byte %d", at)
			require.Equal(t, byte(0), b[at], "byte %d", at) // alignment
			continue
		}
		var damaged *wal.DamagedError
		require.ErrorAs(t, err, &damaged, "byte %d", at)
	}
}

func TestLostPages(t *testing.T) {
	name, b := full().Segment(0)
	for _, at := range []int{8192, 40 * 8192, 127 * 8192} {
		hole := append([]byte(nil), b...)
		clear(hole[at : at+8192])
		r, err := wal.Examine(bytes.NewReader(hole), name, 0, wal.Options{})
		if at == 127*8192 {
			require.NoError(t, err)
			require.False(t, r.Complete)
			continue
		}
		var damaged *wal.DamagedError
		require.ErrorAs(t, err, &damaged)
		require.LessOrEqual(t, r.ValidTo, r.Start+pg.LSN(at))
		require.Greater(t, r.ValidTo+30000, r.Start+pg.LSN(at))
	}
}

func TestRefused(t *testing.T) {
	s := full()
	name, b := s.Segment(0)
	change := func(at int, v ...byte) []byte {
		c := append([]byte(nil), b...)
		copy(c[at:], v)
		return c
	}
	for what, c := range map[string]struct {
		name pg.SegmentName
		b    []byte
		size pg.SegmentSize
		err  error
	}{
		"empty":               {name, nil, 0, wal.ErrNotWAL},
		"zeroes":              {name, make([]byte, 1<<20), 0, wal.ErrNotWAL},
		"short":               {name, b[:39], 0, wal.ErrNotWAL},
		"other version":       {name, change(0, 0x01, 0xD1), 0, wal.ErrNotWAL},
		"no long header":      {name, change(2, 0), 0, wal.ErrNotWAL},
		"unknown flags":       {name, change(2, 0x12), 0, wal.ErrNotWAL},
		"segment size":        {name, change(32, 1), 0, wal.ErrNotWAL},
		"block size":          {name, change(36, 1), 0, wal.ErrNotWAL},
		"other segment":       {s.Size.Name(1, 4), b, 0, wal.ErrWrongPage},
		"impossible name":     {"000000010000000000001000", b, 0, wal.ErrWrongPage},
		"newer timeline":      {name, change(4, 2), 0, wal.ErrWrongPage},
		"timeline 0":          {name, change(4, 0), 0, wal.ErrWrongPage},
		"other segment size":  {name, b, 16 << 20, wal.ErrWrongPage},
		"longer than it says": {name, append(change(0), 0), 0, wal.ErrWrongPage},
	} {
		_, err := wal.Examine(bytes.NewReader(c.b), c.name, c.size, wal.Options{})
		require.ErrorIs(t, err, c.err, what)
	}
	_, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{SystemID: cluster + 1})
	var other *wal.OtherClusterError
	require.ErrorAs(t, err, &other)
	require.Equal(t, wal.OtherClusterError{Want: cluster + 1, Got: cluster}, *other)
}

// A promotion in the middle: the new timeline's file begins with pages of the
// old one, and never goes back.
func TestPromotion(t *testing.T) {
	s := waltest.New(cluster)
	s.Noise(1000)
	s.Timeline = 3
	s.Fill(0)
	name, b := s.Segment(0)
	require.Equal(t, pg.Timeline(3), name.Timeline())
	r := examine(t, name, b)
	require.True(t, r.Complete)
	require.Equal(t, pg.Timeline(3), r.Timeline)

	// Pages of the old timeline at the right address, left over behind the end
	// of the new one's records, are no damage.
	s = waltest.New(cluster)
	s.Noise(500)
	end := int(s.LSN() - s.Size.Start(3))
	s.Fill(0)
	_, before := s.Segment(0)
	s = waltest.New(cluster)
	s.Noise(400)
	s.Timeline = 3
	s.Noise(100)
	require.Equal(t, end, int(s.LSN()-s.Size.Start(3)))
	name, b = s.Segment(0)
	at := (end + 8191) / 8192 * 8192
	b = append(append([]byte(nil), b[:at]...), before[at:]...)
	r = examine(t, name, b)
	require.False(t, r.Complete)
	require.Equal(t, s.LSN(), r.ValidTo)
}

// At the end of recovery the server keeps whole segments of the old timeline
// under names of the new one. They are not those segments. One in which the
// promotion happened on the last page is: a record says so.
func TestKeptForLaterUse(t *testing.T) {
	s := waltest.New(cluster)
	s.Fill(0)
	old, b := s.Segment(0)
	n, err := old.Number(s.Size)
	require.NoError(t, err)
	name := s.Size.Name(3, n)
	_, err = wal.ExamineBytes(b, name, 0, wal.Options{})
	require.ErrorIs(t, err, wal.ErrWrongPage)
	require.NoError(t, wal.CheckFirst(b, name, 0, 0)) // who has the history knows better
	require.Equal(t, old.Timeline(), wal.FirstTimeline(b))

	s = waltest.New(cluster)
	s.Noise(10)
	endOfRecovery := make([]byte, 16)
	endOfRecovery[8], endOfRecovery[12] = 3, 1
	s.Append(0, 0x90, 0, append([]byte{0xFF, 16}, endOfRecovery...)) // main data, short form
	_, b = s.Segment(0)
	r, err := wal.ExamineBytes(b, name, 0, wal.Options{})
	require.NoError(t, err)
	require.Equal(t, s.LSN(), r.ValidTo)
}

// A crash between the pages of a record, as XLOG_OVERWRITE_CONTRECORD marks it.
func TestOverwrittenContinuation(t *testing.T) {
	s := waltest.New(cluster)
	s.Noise(100)
	prev, _ := s.Append(10, 0, 0, waltest.Main(make([]byte, 20)))
	s.Append(10, 0, 0, waltest.Main(make([]byte, 9000)))
	s.LosePartial(prev)
	s.Append(0, 0xD0, 0, waltest.Main(make([]byte, 16)))
	s.Commit(5, noon)
	s.Fill(0)
	name, b := s.Segment(0)
	r := examine(t, name, b)
	require.True(t, r.Complete)
	require.Equal(t, 1, r.Commits)
}

func TestPreparedTransactions(t *testing.T) {
	u32 := func(v ...uint32) (b []byte) {
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, x)
		}
		return b
	}
	for _, major := range []int{13, 15, 18} {
		item := 3
		if major == 18 {
			item = 4
		}
		s := waltest.New(cluster)
		s.Major = major
		// All parts: dbinfo, 2 subxacts, 1 file, 1 statistics item, 1 message, xid.
		body := append(waltest.Timestamp(noon), u32(0x11F, 1, 2, 2, 901, 902, 1, 1, 2, 3)...)
		body = append(body, u32(1)...)
		body = append(body, make([]byte, item*4)...)
		body = append(body, u32(1, 0, 0, 0, 0, 900)...)
		s.Append(1, 0x30|0x80, 0, waltest.Main(body))
		// An abort has no messages.
		s.Append(1, 0x40|0x80, 0, waltest.Main(append(waltest.Timestamp(noon), u32(0x10, 950)...)))
		s.Append(1, 0x10, 960, waltest.Main(make([]byte, 80))) // PREPARE ends nothing
		// An origin and a top-level xid before the main data.
		s.Append(1, 0, 905, append([]byte{253, 1, 0, 252, 1, 0, 0, 0}, waltest.Main(waltest.Timestamp(noon))...))
		name, b := s.Segment(0)
		r := examine(t, name, b)
		require.Equal(t, 2, r.Commits)
		require.Equal(t, uint32(900), r.MinXID)
		require.Equal(t, uint32(950), r.MaxXID)
	}
}

// XIDs wrap around.
func TestXIDRange(t *testing.T) {
	s := waltest.New(cluster)
	s.Commit(0xFFFFFFF0, noon)
	s.Commit(10, noon)
	name, b := s.Segment(0)
	r := examine(t, name, b)
	require.Equal(t, uint32(0xFFFFFFF0), r.MinXID)
	require.Equal(t, uint32(10), r.MaxXID)
}

func TestVisit(t *testing.T) {
	s := waltest.New(cluster)
	long := bytes.Repeat([]byte("walkeep "), 4000)
	lsn, end := s.Append(10, 0x20, 77, waltest.Main(long))
	s.Noise(3)
	name, b := s.Segment(0)
	n := 0
	_, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{Visit: func(r *wal.Record) error {
		if n++; n == 1 {
			require.Equal(t, wal.Record{LSN: lsn, End: end, XID: 77, RMID: 10, Info: 0x20, Length: uint32(24 + 5 + len(long)), Data: waltest.Main(long)}, *r)
		}
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, 4, n)

	enough := errors.New("enough")
	_, err = wal.Examine(bytes.NewReader(b), name, 0, wal.Options{Visit: func(*wal.Record) error { return enough }})
	require.ErrorIs(t, err, enough)
}

// A record longer than a visitor's limit, over several segments.
func TestHugeRecord(t *testing.T) {
	s := waltest.New(cluster)
	s.Size, s.First = 16<<20, 1
	s.Append(10, 0, 0, waltest.Main(make([]byte, 10<<20)))
	s.Append(10, 0, 0, waltest.Main(make([]byte, 40<<20)))
	s.Fill(3)
	for i := range 4 {
		name, b := s.Segment(i)
		records := 0
		r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{Visit: func(r *wal.Record) error {
			if records++; i == 0 {
				require.True(t, r.Truncated)
				require.Len(t, r.Data, wal.MaxData)
			}
			return nil
		}})
		require.NoError(t, err)
		require.True(t, r.Complete, i)
		switch i {
		case 0:
			require.Equal(t, 1, records)
		case 1, 2:
			require.Zero(t, records)
		}
	}
}

// zeroes never ends.
type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Constant memory: a segment of 1 GiB costs no more than a small one.
func TestMemory(t *testing.T) {
	s := waltest.New(cluster)
	s.Size, s.First = 1<<30, 1
	s.Noise(100)
	s.SwitchRecord()
	name, b := s.Written()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := wal.Examine(io.LimitReader(io.MultiReader(bytes.NewReader(b), zeroes{}), 1<<30), name, 0, wal.Options{})
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func FuzzExamine(f *testing.F) {
	small := func(s *waltest.Stream, size int) []byte {
		_, b := s.Segment(0)
		return b[:size]
	}
	s := waltest.New(cluster)
	s.Commit(5, noon)
	s.RestorePoint("x", noon)
	s.Append(1, 0xB0, 0, waltest.Main(append(waltest.Timestamp(noon), make([]byte, 60)...)))
	s.Noise(60)
	f.Add(small(s, 3*8192), true)
	s.Switch()
	f.Add(small(s, 3*8192), true)
	s = waltest.New(cluster)
	s.Append(10, 0, 0, waltest.Main(make([]byte, 20000)))
	f.Add(small(s, 4*8192), false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign && len(b) > 64 {
			signRecords(b)
		}
		if len(b) > 1<<17 {
			b = b[:1<<17]
		}
		const name = "000000010000000000000003"
		var last pg.LSN
		r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{Visit: func(r *wal.Record) error {
			require.GreaterOrEqual(t, r.LSN, last)
			require.Greater(t, r.End, r.LSN)
			require.LessOrEqual(t, len(r.Data), int(r.Length)-24)
			last = r.End
			return nil
		}})
		require.LessOrEqual(t, r.ValidTo, r.Start+pg.LSN(len(b))+8192)
		require.GreaterOrEqual(t, r.ValidTo, r.Start)
		require.False(t, r.Complete && err != nil)
	})
}

// signRecords makes the CRCs of the records on the first page right, or the
// fuzzer never gets behind them.
func signRecords(b []byte) {
	for pos := 40; pos+24 <= min(len(b), 8192); {
		n := int(binary.LittleEndian.Uint32(b[pos:]))
		if n < 24 || pos+n > min(len(b), 8192) {
			return
		}
		binary.LittleEndian.PutUint32(b[pos+20:], waltest.CRC(b[pos:pos+n]))
		pos += (n + 7) &^ 7
	}
}

func BenchmarkExamine(b *testing.B) {
	s := waltest.New(cluster)
	s.Size, s.First = 16<<20, 1
	s.Fill(0)
	name, seg := s.Segment(0)
	b.Run("examine", func(b *testing.B) {
		b.SetBytes(int64(len(seg)))
		b.ReportAllocs()
		for b.Loop() {
			r, err := wal.Examine(bytes.NewReader(seg), name, 0, wal.Options{})
			if err != nil || !r.Complete {
				b.Fatal(err)
			}
		}
	})
	b.Run("digest-alone", func(b *testing.B) {
		b.SetBytes(int64(len(seg)))
		for b.Loop() {
			wal.DigestOf(seg)
		}
	})
}
