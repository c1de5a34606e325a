//go:build cgo

package codec

import "github.com/cloudflare/golz4"

// lz4Fast compresses blocks at level 1.
type lz4Fast struct{}

// compress writes the block of src to room; 0: it does not fit.
func (lz4Fast) compress(src, room []byte) (int, error) {
	n, err := lz4.Compress(src, room)
	if err != nil {
		// Its only error: not enough room.
		return 0, nil
	}
	return n, nil
}
