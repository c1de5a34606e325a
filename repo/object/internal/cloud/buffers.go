package cloud

import "sync"

// smallBuffer is the size in bytes up to which a buffer is not worth keeping.
const smallBuffer = 64 << 10

// Buffers hands out byte slices of one size and takes them back, so that
// uploads do not make garbage of a part each. The zero value is not ready; use
// NewBuffers. It may be used from many goroutines.
type Buffers struct {
	size int64
	pool sync.Pool // of *[]byte, all of the one size
}

// NewBuffers keeps buffers of size bytes.
func NewBuffers(size int64) *Buffers { return &Buffers{size: size} }

// Get returns a slice of n bytes with arbitrary content; n may be larger than
// the size kept.
func (b *Buffers) Get(n int64) []byte {
	if n > b.size || n <= smallBuffer {
		return make([]byte, n)
	}
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, b.size)[:n]
}

// Put takes back a slice from Get. Only give back what nothing can still be
// reading: after a request that failed or was cancelled, the HTTP transport may
// be, and another upload would then be changing bytes under its hands. Leave
// those to the garbage collector.
func (b *Buffers) Put(buf []byte) {
	if int64(cap(buf)) != b.size {
		return
	}
	buf = buf[:b.size]
	b.pool.Put(&buf)
}
