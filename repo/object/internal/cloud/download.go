package cloud

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Download returns a reader of body that ends after exactly size bytes: a body
// that ends earlier yields io.ErrUnexpectedEOF, one with more bytes an error as
// well. place says where it comes from, for the errors.
func Download(body io.ReadCloser, size int64, place string) io.ReadCloser {
	return &download{body: body, left: size, place: place}
}

type download struct {
	body  io.ReadCloser
	left  int64
	place string
	broke bool // a Read failed
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.read(p)
	d.broke = d.broke || err != nil && err != io.EOF
	return n, err
}

func (d *download) read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.left -= int64(n)
	switch {
	case d.left < 0:
		return 0, fmt.Errorf("read %s: the store sent more bytes than it announced", d.place)
	case err == io.EOF && d.left > 0:
		return n, fmt.Errorf("read %s: %d bytes short: %w", d.place, d.left, io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF && errors.Is(err, io.EOF):
		// A connection that ended between two requests, say. Nobody who asks
		// errors.Is(err, io.EOF) shall take it for the end of the object.
		return n, fmt.Errorf("read %s: %w: %s", d.place, io.ErrUnexpectedEOF, err)
	case err != nil && err != io.EOF:
		return n, fmt.Errorf("read %s: %w", d.place, err)
	}
	return n, err
}

// Close does not repeat the error of a Read, as one SDK's readers do.
func (d *download) Close() error {
	if err := d.body.Close(); err != nil && !d.broke {
		return fmt.Errorf("read %s: %w", d.place, err)
	}
	return nil
}

// ListOrder checks that a store lists keys in ascending byte order. It is the
// state of one listing.
type ListOrder struct {
	last string
	any  bool
}

// Next is called with each key; an error means that the store broke the order
// on which whoever lists relies.
func (o *ListOrder) Next(key string) error {
	if o.any && key <= o.last {
		return fmt.Errorf("the store lists keys out of order: %q after %q", key, o.last)
	}
	o.last, o.any = key, true
	return nil
}

// Range is the value of a Range header for length bytes from offset on, or for
// all from there on if length is negative.
func Range(offset, length int64) string {
	if length < 0 || offset > math.MaxInt64-length {
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}
