package repo

import (
	"errors"
	"fmt"
	"io"
)

// sizedReader is a body that can be sent again.
type sizedReader interface {
	io.ReadSeeker
	Size() int64
}

// partsReader reads slices one after the other, as if they were one.
type partsReader struct {
	parts [][]byte
	size  int64

	at   int64 // from the beginning of all
	part int   // where at lies; len(parts) at the end
	off  int   // in it
}

func newPartsReader(parts [][]byte) *partsReader {
	r := &partsReader{parts: parts}
	for _, p := range parts {
		r.size += int64(len(p))
	}
	return r
}

// Size is the sum of all, bytes.
func (r *partsReader) Size() int64 { return r.size }

// Read implements io.Reader.
func (r *partsReader) Read(b []byte) (n int, err error) {
	for n < len(b) && r.part < len(r.parts) {
		k := copy(b[n:], r.parts[r.part][r.off:])
		n += k
		r.skip(int64(k))
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *partsReader) WriteTo(w io.Writer) (n int64, err error) {
	for r.part < len(r.parts) {
		k, err := w.Write(r.parts[r.part][r.off:])
		n += int64(k)
		r.skip(int64(k))
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// skip goes on by n bytes, not beyond the end.
func (r *partsReader) skip(n int64) {
	r.at += n
	for r.part < len(r.parts) {
		left := int64(len(r.parts[r.part]) - r.off)
		if n < left {
			r.off += int(n)
			return
		}
		n -= left
		r.part, r.off = r.part+1, 0
	}
}

var errSeek = errors.New("seek out of range")

// Seek implements io.Seeker.
func (r *partsReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || offset > r.size {
		return r.at, fmt.Errorf("%w: %d of %d", errSeek, offset, r.size)
	}
	r.at, r.part, r.off = 0, 0, 0
	r.skip(offset)
	return r.at, nil
}
