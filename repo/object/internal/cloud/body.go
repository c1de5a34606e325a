package cloud

import (
	"fmt"
	"io"

	"github.com/walkeep/walkeep/repo/object"
)

// Body reads what is to be stored, piece by piece, and knows one byte ahead
// whether more follows: so an object of exactly one part is seen as such, and
// no upload ends in an empty part. It belongs to one goroutine.
type Body struct {
	r     io.Reader
	next  [1]byte
	ahead bool // next holds a byte
	ended bool
}

// NewBody reads from r, which must yield exactly size bytes unless size is 0.
func NewBody(r io.Reader, size int64) *Body {
	return &Body{r: object.Exactly(r, size)}
}

// Fill reads into buf until it is full or the body ends. more says whether
// anything follows; without it the body was read to its end and had the right
// size. Errors are the body's own, wrapped, or object.ErrSize.
func (b *Body) Fill(buf []byte) (n int, more bool, err error) {
	if b.ahead && len(buf) > 0 {
		buf[0] = b.next[0]
		b.ahead = false
		n = 1
	}
	m, err := b.full(buf[n:])
	n += m
	if err != nil || b.ended {
		return n, false, err
	}
	if !b.ahead {
		m, err := b.full(b.next[:])
		if err != nil {
			return n, false, err
		}
		b.ahead = m == 1
	}
	return n, b.ahead, nil
}

// full is io.ReadFull, but tells the end of the body (b.ended) from a body
// whose own error is io.ErrUnexpectedEOF.
func (b *Body) full(buf []byte) (n int, err error) {
	empty := 0
	for n < len(buf) && !b.ended {
		m, err := b.r.Read(buf[n:])
		n += m
		switch {
		case err == io.EOF:
			b.ended = true
		case err != nil:
			return n, fmt.Errorf("read body: %w", err)
		case m > 0:
			empty = 0
		default:
			if empty++; empty >= 100 {
				return n, fmt.Errorf("read body: %w", io.ErrNoProgress)
			}
		}
	}
	return n, nil
}
