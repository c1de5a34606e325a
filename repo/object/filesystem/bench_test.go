package filesystem_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

func benchStore(b *testing.B) *filesystem.Store {
	b.Helper()
	store, err := filesystem.New(filesystem.Options{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	return store
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(p)
	return p
}

// chunks yields its content a compressed chunk at a time, as a pack does.
type chunks struct{ r io.Reader }

func (c chunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), 200_000)]) }

// BenchmarkPutPack stores packs of 64 MiB of unknown size, several at a time.
// One operation is one pack; old ones are deleted on the way.
func BenchmarkPutPack(b *testing.B) {
	pack := random(64 << 20)
	for _, writers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			store := benchStore(b)
			b.SetBytes(int64(len(pack)))
			var next atomic.Int64
			var running sync.WaitGroup
			b.ResetTimer()
			for range writers {
				running.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						key := fmt.Sprintf("backup/b/pack/%08x", i%16)
						if _, err := store.Put(b.Context(), key, chunks{bytes.NewReader(pack)}, object.PutOptions{}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			running.Wait()
		})
	}
}

// BenchmarkPutSmall stores small objects, each durable, in one directory.
func BenchmarkPutSmall(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			store := benchStore(b)
			var next atomic.Int64
			var running sync.WaitGroup
			b.ResetTimer()
			for range writers {
				running.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if _, err := store.Put(b.Context(), fmt.Sprintf("wal/1/%d", i), strings.NewReader("x"), object.PutOptions{IfAbsent: true}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			running.Wait()
		})
	}
}

// BenchmarkGetPack reads packs of 64 MiB, by 1 MiB.
func BenchmarkGetPack(b *testing.B) {
	store := benchStore(b)
	pack := random(64 << 20)
	if _, err := store.Put(b.Context(), "pack", bytes.NewReader(pack), object.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(pack)))
	buffer := make([]byte, 1<<20)
	for b.Loop() {
		r, err := store.Get(b.Context(), "pack", 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buffer); err != nil {
			b.Fatal(err)
		}
		_ = r.Close()
	}
}
