//go:build !cgo

package codec

import "github.com/pierrec/lz4/v4"

// lz4Fast compresses blocks at level 1.
type lz4Fast struct{ c lz4.Compressor }

func newLZ4Fast() lz4Fast { return lz4Fast{} }

// compress writes the block of src to room; 0: it does not fit.
func (f *lz4Fast) compress(src, room []byte) (int, error) {
	return f.c.CompressBlock(src, room)
}
