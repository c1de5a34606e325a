package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var all = []Codec{{Name: Zstd, Level: 1}, {Name: Zstd}, {Name: Zstd, Level: 9}, {Name: LZ4}, {Name: LZ4, Level: 9}, {Name: None}}

var sizes = []int{0, 1, 2, 100, 255, 256, 257, 8192, 65535, 65536 + 256, 128 << 10, 128<<10 + 1, 1 << 20, 1<<20 - 1, MaxFrame}

// pages makes n bytes that look like table pages: rows of small integers and
// words, half-empty, with random parts.
func pages(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+256)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint32(b, r.Uint32N(1<<24))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(b)/100))
		b = append(b, fmt.Sprintf("account %d of branch %d; balance %d", r.IntN(1<<20), r.IntN(64), r.IntN(1<<16))...)
		b = append(b, make([]byte, 20)...)
	}
	return b[:n]
}

func noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n]
}

func inputs(n int) [][]byte {
	return [][]byte{pages(n, 1), noise(n, 1), make([]byte, n)}
}

func newEncoder(t testing.TB, c Codec) *Encoder {
	enc, err := NewEncoder(c)
	require.NoError(t, err)
	return enc
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Codec{"zstd": {Name: Zstd}, "zstd:7": {Name: Zstd, Level: 7}, "lz4": {Name: LZ4}, "none": {Name: None}} {
		c, err := Parse(s)
		require.NoError(t, err)
		require.Equal(t, want, c)
		require.Equal(t, s, c.String())
	}
	for _, s := range []string{"", "gzip", "zstd:0", "zstd:20", "zstd:x", "lz4:10", "none:1", "zstd:", "zstd:-1"} {
		_, err := Parse(s)
		require.Error(t, err, s)
	}
}

func TestRoundTrip(t *testing.T) {
	dec := NewDecoder()
	for _, c := range all {
		enc := newEncoder(t, c)
		for _, n := range sizes {
			for i, src := range inputs(n) {
				frame, err := enc.Append([]byte("before"), src)
				require.NoError(t, err)
				require.Equal(t, "before", string(frame[:6]))
				frame = frame[6:]
				require.LessOrEqual(t, len(frame), Bound(n))
				plain, err := dec.Append([]byte("also"), frame, n)
				require.NoError(t, err, "%s %d %d", c, n, i)
				require.True(t, bytes.Equal(append([]byte("also"), src...), plain), "%s %d %d", c, n, i)

				_, err = dec.Append(nil, frame, n+1)
				require.ErrorIs(t, err, ErrCorrupt)
				_, err = dec.Append(nil, append(bytes.Clone(frame), 0), n)
				require.ErrorIs(t, err, ErrCorrupt)
				_, err = dec.Append(nil, frame[:len(frame)-1], n)
				require.ErrorIs(t, err, ErrCorrupt)
			}
		}
	}
}

func TestTooLarge(t *testing.T) {
	_, err := newEncoder(t, Default()).Append(nil, make([]byte, MaxFrame+1))
	require.Error(t, err)
}

// No allocation per chunk is what the backup's speed stands on.
func TestNoAllocation(t *testing.T) {
	src := pages(1<<20, 1)
	dst := make([]byte, 0, Bound(len(src)))
	back := make([]byte, 0, len(src))
	for _, c := range all {
		enc, dec := newEncoder(t, c), NewDecoder()
		var frame []byte
		require.Zero(t, testing.AllocsPerRun(3, func() { frame, _ = enc.Append(dst, src) }), c.String())
		require.LessOrEqual(t, testing.AllocsPerRun(3, func() { _, _ = dec.Append(back, frame, len(src)) }), 0.0, c.String())
	}
}

// Wherever a bit of the structure flips: an error or the same number of
// bytes, never a panic or more memory. (Flips inside the compressed bytes are for
// the callers' checksums.)
func TestFlippedBytes(t *testing.T) {
	for _, c := range all {
		enc, dec := newEncoder(t, c), NewDecoder()
		src := pages(3000, 1)
		frame, err := enc.Append(nil, src)
		require.NoError(t, err)
		for i := range frame {
			for bit := range 8 {
				bad := bytes.Clone(frame)
				bad[i] ^= 1 << bit
				out, err := dec.Append(nil, bad, len(src))
				if err == nil {
					require.Len(t, out, len(src))
				} else {
					require.ErrorIs(t, err, ErrCorrupt)
				}
			}
		}
	}
}

// The zstd header has two bits that libzstd does not look at.
func TestUnusedBits(t *testing.T) {
	for _, c := range []Codec{{Name: Zstd}, {Name: None}} {
		frame, err := newEncoder(t, c).Append(nil, pages(3000, 1))
		require.NoError(t, err)
		for _, bit := range []byte{0x10, 0x08, 0x01, 0x02} {
			bad := bytes.Clone(frame)
			bad[4] |= bit
			_, err = NewDecoder().Append(nil, bad, 3000)
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
}

func skippable(magic uint32, payload string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

func TestStream(t *testing.T) {
	for _, c := range all {
		for _, n := range []int{0, 1, 5000, MaxFrame, MaxFrame + 1, 2*MaxFrame + 77} {
			src := pages(n, 3)
			var b bytes.Buffer
			b.Write(skippable(0x184D2A53, "not for us"))
			w, err := NewWriter(&b, c)
			require.NoError(t, err)
			_, err = io.Copy(struct{ io.Writer }{w}, bytes.NewReader(src))
			require.NoError(t, err)
			require.NoError(t, w.Close())
			_, err = w.Write([]byte("x"))
			require.Error(t, err)
			b.Write(skippable(0x184D2A5F, ""))

			stream := b.Bytes()
			got, err := io.ReadAll(NewReader(bytes.NewReader(stream)))
			require.NoError(t, err)
			require.True(t, bytes.Equal(src, got))

			_, err = io.ReadAll(NewReader(bytes.NewReader(stream[:len(stream)-9])))
			require.ErrorIs(t, err, ErrCorrupt)
			_, err = io.ReadAll(NewReader(bytes.NewReader(append(bytes.Clone(stream), "junk"...))))
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
}

// Both command lines read what we write.
func TestCommandLines(t *testing.T) {
	for _, c := range all {
		tool := "zstd"
		if c.Name == LZ4 {
			tool = "lz4"
		}
		for _, n := range []int{0, 1, 5000, 3*MaxFrame + 77} {
			src := pages(n, 4)
			var b bytes.Buffer
			b.Write(skippable(0x184D2A50, "head\n"))
			w, err := NewWriter(&b, c)
			require.NoError(t, err)
			_, err = w.Write(src)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			b.Write(skippable(0x184D2A51, "tail\n"))
			cmd := exec.Command(tool, "-dc")
			cmd.Stdin = &b
			out, err := cmd.Output()
			require.NoError(t, err, "%s %s %d", tool, c, n)
			require.True(t, bytes.Equal(src, out))
		}
	}
}

// interop is shared with the build of the other kind: see TestOtherBuild. It
// writes frames under its own name and decodes those of the other.
func interop(t *testing.T, dir, mine, other string) {
	dec := NewDecoder()
	for _, c := range all {
		enc := newEncoder(t, c)
		for _, n := range sizes {
			for i, src := range inputs(n) {
				name := filepath.Join(dir, fmt.Sprintf("%s-%d-%d-%d", c.Name, c.Level, n, i))
				frame, err := enc.Append(nil, src)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(name+"."+mine, frame, 0o600))
				if frame, err = os.ReadFile(name + "." + other); os.IsNotExist(err) {
					continue
				}
				require.NoError(t, err)
				plain, err := dec.Append(nil, frame, n)
				require.NoError(t, err, name)
				require.True(t, bytes.Equal(src, plain), name)
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, c := range all {
		for _, n := range []int{0, 1, 500} {
			frame, err := newEncoder(f, c).Append(nil, pages(n, 1))
			require.NoError(f, err)
			f.Add(frame, n)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, n int) {
		if n < 0 || n > 1<<20 {
			return
		}
		out, err := NewDecoder().Append(nil, frame, n)
		if err == nil {
			require.Len(t, out, n)
		}
	})
}

// FuzzRoundTrip: whatever one library compresses, the other brings back.
func FuzzRoundTrip(f *testing.F) {
	for _, n := range []int{0, 1, 13, 500, 100_000} {
		f.Add(pages(n, 1))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, c := range all {
			frame, err := newEncoder(t, c).Append(nil, src)
			require.NoError(t, err)
			plain, err := NewDecoder().Append(nil, frame, len(src))
			require.NoError(t, err, c)
			require.True(t, bytes.Equal(src, plain), c)
		}
	})
}

func FuzzStream(f *testing.F) {
	for _, c := range all {
		frame, err := newEncoder(f, c).Append(skippable(0x184D2A50, "head"), pages(500, 1))
		require.NoError(f, err)
		f.Add(frame)
	}
	f.Fuzz(func(_ *testing.T, stream []byte) {
		_, _ = io.Copy(io.Discard, NewReader(bytes.NewReader(stream)))
	})
}

func BenchmarkAppend(b *testing.B) {
	src := pages(1<<20, 1)
	dst := make([]byte, 0, Bound(len(src)))
	for _, c := range []Codec{{Name: Zstd, Level: 1}, {Name: Zstd, Level: 3}, {Name: LZ4}, {Name: None}} {
		b.Run(c.String(), func(b *testing.B) {
			enc := newEncoder(b, c)
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			var frame []byte
			for b.Loop() {
				frame, _ = enc.Append(dst, src)
			}
			b.ReportMetric(float64(len(src))/float64(len(frame)), "ratio")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	src := pages(1<<20, 1)
	back := make([]byte, 0, len(src))
	for _, c := range []Codec{{Name: Zstd, Level: 3}, {Name: LZ4}, {Name: None}} {
		b.Run(c.String(), func(b *testing.B) {
			frame, err := newEncoder(b, c).Append(nil, src)
			require.NoError(b, err)
			dec := NewDecoder()
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				_, err = dec.Append(back, frame, len(src))
			}
			require.NoError(b, err)
		})
	}
}
