package codec

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// NewWriter returns a writer that compresses into frames of MaxFrame plain
// bytes each, the last one shorter. Close writes the last one (an empty frame
// if nothing was written at all) and leaves w open.
func NewWriter(w io.Writer, c Codec) (io.WriteCloser, error) {
	enc, err := NewEncoder(c)
	if err != nil {
		return nil, err
	}
	return &writer{w: w, enc: enc}, nil
}

type writer struct {
	w     io.Writer
	enc   *Encoder
	plain []byte
	frame []byte
	any   bool // a frame was written
	err   error
}

func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && w.err == nil {
		if len(w.plain) == MaxFrame {
			w.flush()
			continue
		}
		m := min(len(p), MaxFrame-len(w.plain))
		w.plain = append(w.plain, p[:m]...)
		p, n = p[m:], n+m
	}
	return n, w.err
}

func (w *writer) flush() {
	w.frame, w.err = w.enc.Append(w.frame[:0], w.plain)
	if w.err == nil {
		_, w.err = w.w.Write(w.frame)
	}
	w.plain, w.any = w.plain[:0], true
}

func (w *writer) Close() error {
	if w.err == nil && (len(w.plain) > 0 || !w.any) {
		w.flush()
	}
	err := w.err
	if err == nil {
		w.err = errors.New("write after close")
	}
	w.plain, w.frame = nil, nil
	return err
}

// FrameReader cuts a stream into its frames. It holds one frame in memory.
type FrameReader struct {
	r   *bufio.Reader
	buf []byte
}

// NewFrameReader reads frames from r, and possibly more of r than these.
func NewFrameReader(r io.Reader) *FrameReader {
	return &FrameReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Frame is one frame as it is stored.
type Frame struct {
	Raw []byte // all of it; valid until the next call of Next
	// Skippable frames have a magic number, 0x184D2A50 to 0x184D2A5F, and a
	// payload; others have Magic 0.
	Magic   uint32
	Payload []byte
	Plain   int // bytes of content, at most MaxFrame
}

// Next returns the next frame, or io.EOF at the end of the stream. A frame
// that breaks its format, holds more than MaxFrame bytes, or is cut off is
// ErrCorrupt. Memory grows with the bytes that are there, not with what
// headers announce.
func (f *FrameReader) Next() (Frame, error) {
	f.buf = f.buf[:0]
	if _, err := f.r.Peek(1); err != nil {
		return Frame{}, err
	}
	if err := f.fill(4); err != nil {
		return Frame{}, err
	}
	magic := binary.LittleEndian.Uint32(f.buf)
	if magic&skippableMask == skippableMagic {
		return f.skippable(magic)
	}
	if err := f.collect(magic); err != nil {
		return Frame{}, err
	}
	info, err := inspect(f.buf)
	if err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if info.content > MaxFrame {
		return Frame{}, fmt.Errorf("%w: it holds %d bytes, more than %d", ErrCorrupt, info.content, MaxFrame)
	}
	return Frame{Raw: f.buf, Plain: int(info.content)}, nil
}

func (f *FrameReader) skippable(magic uint32) (Frame, error) {
	if err := f.fill(4); err != nil {
		return Frame{}, err
	}
	n := binary.LittleEndian.Uint32(f.buf[4:])
	if n > maxStored {
		return Frame{}, fmt.Errorf("%w: skippable frame of %d bytes", ErrCorrupt, n)
	}
	if err := f.fill(int(n)); err != nil {
		return Frame{}, err
	}
	return Frame{Raw: f.buf, Magic: magic, Payload: f.buf[8:]}, nil
}

// maxStored bounds a frame as stored: the largest that an Encoder writes, and
// some room for other encoders and for skippable frames.
const maxStored = 2 * MaxFrame

// collect reads the frame whose magic number is in the buffer, block by
// block: each block says where the next one begins.
func (f *FrameReader) collect(magic uint32) error {
	switch magic {
	case zstdMagic:
		return f.collectZstd()
	case lz4Magic:
		return f.collectLZ4()
	}
	return fmt.Errorf("%w: unknown magic number %08x", ErrCorrupt, magic)
}

func (f *FrameReader) collectZstd() error {
	if err := f.fill(1); err != nil {
		return err
	}
	descriptor := f.buf[4]
	header := []int{0, 2, 4, 8}[descriptor>>6]
	if descriptor&0x20 == 0 {
		header++ // window descriptor
	} else if header == 0 {
		header = 1
	}
	if err := f.fill(header); err != nil {
		return err
	}
	for {
		at := len(f.buf)
		if err := f.fill(3); err != nil {
			return err
		}
		block := int(f.buf[at]) | int(f.buf[at+1])<<8 | int(f.buf[at+2])<<16
		size := block >> 3
		if block>>1&3 == 1 {
			size = 1
		}
		if err := f.fill(size); err != nil {
			return err
		}
		if block&1 != 0 {
			break
		}
	}
	if descriptor&0x04 != 0 {
		return f.fill(4)
	}
	return nil
}

func (f *FrameReader) collectLZ4() error {
	if err := f.fill(lz4HeaderLength - 4); err != nil {
		return err
	}
	for {
		at := len(f.buf)
		if err := f.fill(4); err != nil {
			return err
		}
		size := binary.LittleEndian.Uint32(f.buf[at:]) &^ lz4Raw
		if binary.LittleEndian.Uint32(f.buf[at:]) == 0 {
			return nil
		}
		if size > MaxFrame {
			return fmt.Errorf("%w: lz4 block of %d bytes", ErrCorrupt, size)
		}
		if err := f.fill(int(size)); err != nil {
			return err
		}
	}
}

// fill appends n bytes to the buffer, a little at a time, so that a wrong
// length meets the end of the stream before it costs memory.
func (f *FrameReader) fill(n int) error {
	if len(f.buf)+n > maxStored+8 {
		return fmt.Errorf("%w: longer than %d bytes", ErrCorrupt, maxStored)
	}
	for n > 0 {
		at := len(f.buf)
		m := min(n, 256<<10)
		if cap(f.buf)-at < m {
			f.buf = append(make([]byte, 0, max(2*cap(f.buf), at+m)), f.buf...)
		}
		f.buf = f.buf[:at+m]
		if _, err := io.ReadFull(f.r, f.buf[at:]); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return fmt.Errorf("%w: %w", ErrCorrupt, errShort)
			}
			return err
		}
		n -= m
	}
	return nil
}

// NewReader decodes a sequence of frames of any codec, one in memory at a
// time, skips skippable ones, and is strict about the rest (ErrCorrupt).
func NewReader(r io.Reader) io.Reader {
	return &reader{frames: NewFrameReader(r), dec: NewDecoder()}
}

type reader struct {
	frames *FrameReader
	dec    *Decoder
	plain  []byte
	unread []byte
	err    error
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.unread) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.next()
	}
	n := copy(p, r.unread)
	r.unread = r.unread[n:]
	return n, nil
}

func (r *reader) next() {
	f, err := r.frames.Next()
	if err != nil {
		r.err = err
		return
	}
	if f.Magic != 0 {
		return
	}
	r.plain, r.err = r.dec.Append(r.plain[:0], f.Raw, f.Plain)
	r.unread = r.plain
}
