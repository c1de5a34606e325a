package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	zstdMagic    = 0xFD2FB528
	zstdMaxBlock = 128 << 10
	// skippable frames: sixteen magics, the last hex digit is free.
	skippableMagic = 0x184D2A50
	skippableMask  = 0xFFFFFFF0
)

// errShort: the buffer ends before the frame does.
var errShort = errors.New("frame is cut off")

// frameInfo is what the headers of one frame say.
type frameInfo struct {
	length  int    // of the whole frame
	content uint64 // plain bytes
}

// Decoder reads frames of every codec. One goroutine uses it at a time.
type Decoder struct {
	zstd  zstdDecoder
	spare [1]byte
}

// NewDecoder returns a Decoder.
func NewDecoder() *Decoder { return &Decoder{} }

// Append decodes frame, which must be exactly one whole frame that holds
// exactly plainLen bytes, and appends these to dst. Anything else is
// ErrCorrupt. It allocates at most what dst lacks for plainLen bytes.
func (d *Decoder) Append(dst, frame []byte, plainLen int) ([]byte, error) {
	f, err := inspect(frame)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	case f.length != len(frame):
		return nil, fmt.Errorf("%w: %d bytes after it", ErrCorrupt, len(frame)-f.length)
	case plainLen < 0 || f.content != uint64(plainLen):
		return nil, fmt.Errorf("%w: it holds %d bytes, expected %d", ErrCorrupt, f.content, plainLen)
	}
	dst = slices.Grow(dst, plainLen)
	room := dst[len(dst) : len(dst)+plainLen]
	if plainLen == 0 {
		room = d.spare[:] // libzstd wants an address
	}
	var n int
	if binary.LittleEndian.Uint32(frame) == lz4Magic {
		n, err = decodeLZ4(room[:plainLen], frame)
	} else {
		n, err = d.zstd.decode(room, frame)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if n != plainLen {
		return nil, fmt.Errorf("%w: it yields %d bytes, expected %d", ErrCorrupt, n, plainLen)
	}
	return dst[:len(dst)+plainLen], nil
}

// inspect reads the structure of the frame that begins b, without decoding.
func inspect(b []byte) (frameInfo, error) {
	if len(b) < 4 {
		return frameInfo{}, errShort
	}
	switch magic := binary.LittleEndian.Uint32(b); magic {
	case zstdMagic:
		return zstdFrame(b)
	case lz4Magic:
		return lz4Frame(b)
	default:
		return frameInfo{}, fmt.Errorf("unknown magic number %08x: %w", magic, ErrCorrupt)
	}
}

// zstdFrame reads the structure of the zstd frame at the start of b (RFC 8878,
// 3.1.1). It refuses what this package never writes: no content size, a
// dictionary, reserved and unused bits.
func zstdFrame(b []byte) (f frameInfo, err error) {
	if len(b) < 5 {
		return f, errShort
	}
	descriptor := b[4]
	single := descriptor&0x20 != 0
	checksum := descriptor&0x04 != 0
	if descriptor&(0x10|0x08|0x03) != 0 {
		return f, fmt.Errorf("zstd frame header %02x: %w", descriptor, ErrCorrupt)
	}
	at := 5
	if !single {
		at++ // window descriptor: decoding in one call needs no window
	}
	size := []int{1, 2, 4, 8}[descriptor>>6]
	if size == 1 && !single {
		return f, fmt.Errorf("zstd frame without content size: %w", ErrCorrupt)
	}
	if len(b) < at+size {
		return f, errShort
	}
	if !single && b[5]>>3 > 17 { // 128 MiB
		return f, fmt.Errorf("zstd window descriptor %02x: %w", b[5], ErrCorrupt)
	}
	switch size {
	case 1:
		f.content = uint64(b[at])
	case 2:
		f.content = uint64(binary.LittleEndian.Uint16(b[at:])) + 256
	case 4:
		f.content = uint64(binary.LittleEndian.Uint32(b[at:]))
	case 8:
		f.content = binary.LittleEndian.Uint64(b[at:])
	}
	at, err = zstdBlocks(b, at+size)
	if err == nil && checksum {
		if at += 4; at > len(b) {
			return f, errShort
		}
	}
	f.length = at
	return f, err
}

// zstdBlocks walks the blocks that begin at an offset and returns where they
// end.
func zstdBlocks(b []byte, at int) (int, error) {
	for {
		if len(b) < at+3 {
			return at, errShort
		}
		header := int(b[at]) | int(b[at+1])<<8 | int(b[at+2])<<16
		at += 3
		size := header >> 3
		if size > zstdMaxBlock {
			return at, fmt.Errorf("zstd block of %d bytes: %w", size, ErrCorrupt)
		}
		switch header >> 1 & 3 {
		case 0, 2: // raw, compressed
			at += size
		case 1: // one byte, repeated
			at++
		default:
			return at, fmt.Errorf("zstd block of the reserved type: %w", ErrCorrupt)
		}
		if at > len(b) {
			return at, errShort
		}
		if header&1 != 0 {
			return at, nil
		}
	}
}
