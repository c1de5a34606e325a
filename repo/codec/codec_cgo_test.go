//go:build cgo

package codec

import (
	"os"
	"os/exec"
	"testing"

	"github.com/DataDog/zstd"
	"github.com/stretchr/testify/require"
)

// TestOtherBuild runs this package's tests built without cgo; in between the
// two builds decode each other's frames.
func TestOtherBuild(t *testing.T) {
	dir := t.TempDir()
	interop(t, dir, "cgo", "pure")
	cmd := exec.Command("go", "test", "-count=1", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "WALKEEP_INTEROP="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 2*len(all)*len(sizes)*3)
	interop(t, dir, "cgo", "pure")
}

// TestBothLZ4: the machine's liblz4, which every machine with apt has, and what is
// compiled in write blocks that decode to the same, also where they hardly fit.
func TestBothLZ4(t *testing.T) {
	require.NotNil(t, newLZ4Fast().lib)
	for _, n := range []int{2, 100, 8192, 1 << 20, MaxFrame} {
		src := pages(n, 1)
		for _, fast := range []lz4Fast{{}, newLZ4Fast()} {
			for _, room := range []int{n - 1, n / 2, n / 100} {
				e := &lz4Encoder{fast: fast}
				frame, err := e.appendFrame(make([]byte, 0, Bound(n)), src)
				require.NoError(t, err)
				dst := make([]byte, n)
				m, err := decodeLZ4(dst, frame)
				require.NoError(t, err)
				require.Equal(t, n, m)
				require.Equal(t, src, dst)
				if written, err := fast.compress(src, make([]byte, room)); err == nil {
					require.LessOrEqual(t, written, room)
				}
			}
		}
	}
}

// BenchmarkRaw is libzstd alone, to compare BenchmarkAppend with.
func BenchmarkRaw(b *testing.B) {
	src := pages(1<<20, 1)
	dst := make([]byte, Bound(len(src)))
	for _, level := range []int{1, 3} {
		b.Run(Codec{Name: Zstd, Level: level}.String(), func(b *testing.B) {
			ctx := zstd.NewCtx()
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				_, _ = ctx.CompressLevel(dst, src, level)
			}
		})
	}
}
