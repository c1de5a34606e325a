//go:build cgo

package codec

import (
	"runtime"

	"github.com/DataDog/zstd"
)

// zstdEncoder is a libzstd context, used again for every frame. Its one-shot
// call always writes the content size, and no checksum.
type zstdEncoder struct {
	ctx   zstd.Ctx
	level int
}

func newZstdEncoder(level int) (method, error) {
	return &zstdEncoder{ctx: zstd.NewCtx(), level: level}, nil
}

func (e *zstdEncoder) appendFrame(dst, src []byte) ([]byte, error) {
	// The spare part of dst is longer than libzstd's own bound, so that it is
	// used in place.
	frame, err := e.ctx.CompressLevel(dst[len(dst):cap(dst)], src, e.level)
	// A context that nobody uses any more is freed by a finalizer, also while
	// its last call still runs in C.
	runtime.KeepAlive(e)
	if err != nil {
		return nil, err
	}
	return dst[:len(dst)+len(frame)], nil
}

type zstdDecoder struct{ ctx zstd.Ctx }

// decode fills dst, whose length is at least 1, from one frame.
func (d *zstdDecoder) decode(dst, frame []byte) (int, error) {
	if d.ctx == nil {
		d.ctx = zstd.NewCtx()
	}
	n, err := d.ctx.DecompressInto(dst, frame)
	runtime.KeepAlive(d) // as in appendFrame
	return n, err
}
