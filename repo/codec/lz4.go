package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/pierrec/lz4/v4"
)

// An LZ4 frame as this package writes it: magic; flags; the content size;
// header checksum; one block of up to 4 MiB (none if there is no content); end
// mark. No checksum of the content: every caller keeps a better one outside.
const (
	lz4Magic        = 0x184D2204
	lz4Version      = 0x40 // version 01
	lz4Independent  = 0x20 // blocks do not refer to one another
	lz4ContentSize  = 0x08
	lz4Max4MiB      = 0x70 // block size code 7
	lz4Raw          = 1 << 31
	lz4HeaderLength = 4 + 2 + 8 + 1
)

// lz4Encoder compresses blocks: at level 1 with the original C code where
// there is cgo, which is two to three times as fast as Go's.
type lz4Encoder struct {
	fast lz4Fast
	high *lz4.CompressorHC // nil: fast
}

func newLZ4Encoder(level int) method {
	e := &lz4Encoder{fast: newLZ4Fast()}
	if level > 1 {
		// The library's levels are powers of two: Level1 to Level9.
		e.high = &lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + level))}
	}
	return e
}

func (e *lz4Encoder) appendFrame(dst, src []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint32(dst, lz4Magic)
	descriptor := len(dst)
	dst = append(dst, lz4Version|lz4Independent|lz4ContentSize, lz4Max4MiB)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(src)))
	dst = append(dst, byte(xxh32(dst[descriptor:])>>8))
	if len(src) > 0 {
		var err error
		if dst, err = e.appendBlock(dst, src); err != nil {
			return nil, err
		}
	}
	return append(dst, 0, 0, 0, 0), nil
}

func (e *lz4Encoder) appendBlock(dst, src []byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	// With less room than src the libraries answer 0: not worth it.
	room := dst[at+4 : at+4+len(src)-1]
	var n int
	var err error
	switch {
	case len(src) == 1:
	case e.high != nil:
		n, err = e.high.CompressBlock(src, room)
	default:
		n, err = e.fast.compress(src, room)
	}
	if errors.Is(err, lz4.ErrInvalidSourceShortBuffer) {
		n, err = 0, nil
	}
	if err != nil {
		return nil, fmt.Errorf("compress a block with lz4: %w", err)
	}
	if n == 0 {
		binary.LittleEndian.PutUint32(dst[at:], lz4Raw|uint32(len(src)))
		return append(dst, src...), nil
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(n))
	return dst[:at+4+n], nil
}

// decodeLZ4 fills dst from one frame, whose structure lz4Frame has checked.
func decodeLZ4(dst, frame []byte) (int, error) {
	at, n := lz4HeaderLength, 0
	for {
		size := binary.LittleEndian.Uint32(frame[at:])
		at += 4
		if size == 0 {
			return n, nil
		}
		length := int(size &^ lz4Raw)
		block := frame[at : at+length]
		at += length
		if size&lz4Raw != 0 {
			if len(dst)-n < length {
				return n, fmt.Errorf("more than %d bytes", len(dst))
			}
			n += copy(dst[n:], block)
			continue
		}
		m, err := lz4.UncompressBlock(block, dst[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
}

// lz4Frame reads the structure of the LZ4 frame at the start of b: its
// length and the size of its content. errShort: b ends before the frame does.
// Only what this package writes is accepted, plus several blocks.
func lz4Frame(b []byte) (f frameInfo, err error) {
	if len(b) < lz4HeaderLength {
		return f, errShort
	}
	flags, block := b[4], b[5]
	if flags != lz4Version|lz4Independent|lz4ContentSize || block != lz4Max4MiB {
		return f, fmt.Errorf("lz4 header %02x %02x: %w", flags, block, ErrCorrupt)
	}
	if byte(xxh32(b[4:lz4HeaderLength-1])>>8) != b[lz4HeaderLength-1] {
		return f, fmt.Errorf("lz4 header checksum: %w", ErrCorrupt)
	}
	f.content = binary.LittleEndian.Uint64(b[6:])
	at := lz4HeaderLength
	for {
		if len(b)-at < 4 {
			return f, errShort
		}
		size := binary.LittleEndian.Uint32(b[at:])
		at += 4
		if size == 0 {
			f.length = at
			return f, nil
		}
		if size &^= lz4Raw; size == 0 || size > MaxFrame {
			return f, fmt.Errorf("lz4 block of %d bytes: %w", size, ErrCorrupt)
		}
		if at += int(size); at > len(b) {
			return f, errShort
		}
	}
}

// xxh32 is the XXH32 hash, seed 0, of fewer than 16 bytes: all that the
// checksum of a frame header needs.
func xxh32(b []byte) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := uint32(p5) + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}
