package codec

import (
	"encoding/binary"
	"fmt"
)

// MaxFrame is the most plain bytes that one frame holds: 4 MiB, the largest
// block of the LZ4 frame format.
const MaxFrame = 4 << 20

// Bound is the most bytes that a frame of n plain bytes takes, for any codec.
func Bound(n int) int { return n + n>>7 + 1024 }

// method compresses src into one frame appended to dst, which has room for
// Bound(len(src)) more bytes.
type method interface {
	appendFrame(dst, src []byte) ([]byte, error)
}

// Encoder makes frames. One goroutine uses it at a time; it keeps its working
// memory between calls, and gives it back when it is collected.
type Encoder struct{ m method }

// NewEncoder returns an Encoder for a valid codec.
func NewEncoder(c Codec) (*Encoder, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch c.Name {
	case LZ4:
		return &Encoder{m: newLZ4Encoder(c.Level)}, nil
	case None:
		return &Encoder{m: rawEncoder{}}, nil
	}
	if c.Level == 0 {
		c.Level = Default().Level
	}
	m, err := newZstdEncoder(c.Level)
	if err != nil {
		return nil, fmt.Errorf("start zstd at level %d: %w", c.Level, err)
	}
	return &Encoder{m: m}, nil
}

// Append appends one frame that holds src, at most MaxFrame bytes and maybe
// none, to dst, and returns the extended slice. It allocates only if dst has
// less than Bound(len(src)) bytes to spare.
func (e *Encoder) Append(dst, src []byte) ([]byte, error) {
	if len(src) > MaxFrame {
		return nil, fmt.Errorf("compress a frame of %d bytes: at most %d fit", len(src), MaxFrame)
	}
	if need := Bound(len(src)); cap(dst)-len(dst) < need {
		grown := make([]byte, len(dst), len(dst)+need)
		copy(grown, dst)
		dst = grown
	}
	return e.m.appendFrame(dst, src)
}

// rawEncoder writes zstd frames of raw blocks.
type rawEncoder struct{}

func (rawEncoder) appendFrame(dst, src []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint32(dst, zstdMagic)
	// Single segment (0x20), four-byte content size (0x80).
	dst = append(dst, 0x80|0x20)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(src)))
	for {
		n := min(len(src), zstdMaxBlock)
		block := uint32(n) << 3 // type 0: raw
		if n == len(src) {
			block |= 1 // the last one
		}
		dst = append(dst, byte(block), byte(block>>8), byte(block>>16))
		dst = append(dst, src[:n]...)
		if src = src[n:]; len(src) == 0 {
			return dst, nil
		}
	}
}
