//go:build !cgo

package codec

import "github.com/klauspost/compress/zstd"

type zstdEncoder struct{ enc *zstd.Encoder }

func newZstdEncoder(level int) (method, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false),
		zstd.WithZeroFrames(true),
		zstd.WithSingleSegment(true)) // else small frames lack the content size
	if err != nil {
		return nil, err
	}
	return &zstdEncoder{enc: enc}, nil
}

func (e *zstdEncoder) appendFrame(dst, src []byte) ([]byte, error) {
	return e.enc.EncodeAll(src, dst), nil
}

type zstdDecoder struct{ dec *zstd.Decoder }

// decode fills dst, whose length is at least 1, from one frame.
func (d *zstdDecoder) decode(dst, frame []byte) (int, error) {
	if d.dec == nil {
		dec, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(MaxFrame),
			zstd.WithDecodeAllCapLimit(true)) // writes into dst or fails
		if err != nil {
			return 0, err
		}
		d.dec = dec
	}
	out, err := d.dec.DecodeAll(frame, dst[:0:len(dst)])
	return len(out), err
}
