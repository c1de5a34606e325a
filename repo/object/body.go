package object

import (
	"context"
	"fmt"
	"io"
)

// Exactly returns a reader of body that fails with [ErrSize] instead of ending
// when body yields fewer than size bytes, and as soon as it yields more. Size 0
// means not known (see [PutOptions.Size]) and returns body itself. For drivers;
// the reader is not an io.Seeker, so seek body and wrap it again.
func Exactly(body io.Reader, size int64) io.Reader {
	if size == 0 {
		return body
	}
	return &exactly{body: body, size: size}
}

type exactly struct {
	body       io.Reader
	size, read int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.body.Read(p)
	e.read += int64(n)
	switch {
	case e.read > e.size:
		return 0, Permanent(fmt.Errorf("body is longer than %d bytes: %w", e.size, ErrSize))
	case err == io.EOF && e.read < e.size:
		return n, Permanent(fmt.Errorf("body ended after %d of %d bytes: %w", e.read, e.size, ErrSize))
	}
	return n, err
}

// UntilDone returns a reader of r that fails with the error of ctx once ctx is
// done. It does not interrupt a Read that hangs.
func UntilDone(ctx context.Context, r io.Reader) io.Reader { return untilDone{ctx, r} }

type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
