package repo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"filippo.io/age"
	"github.com/zeebo/xxh3"

	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
)

// DefaultPackSize is about how large packs get, 64 MiB: a writer closes a
// pack once it is at least this large.
const DefaultPackSize = 64 << 20

// castagnoli makes CRC-32C, PostgreSQL's checksum; the CPU computes it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// PackWriter fills one pack, which uploads while it fills. One goroutine
// uses it.
type PackWriter struct {
	b      *BackupWriter
	ctx    context.Context
	id     int
	number uint32
	size   int64
	pipe   *pipe         // nil until the first Append
	done   chan struct{} // closed when the upload ended
	err    error         // of the upload; read after done
	closed bool
}

// ID is what chunks name the pack by.
func (p *PackWriter) ID() int { return p.id }

// Size is the number of bytes appended.
func (p *PackWriter) Size() int64 { return p.size }

// Append adds a chunk's frame and returns its offset. It copies frame, and
// waits while more than a few MiB wait for the store.
func (p *PackWriter) Append(frame []byte) (offset int64, err error) {
	if p.closed {
		return 0, errors.New("append to a closed pack")
	}
	if p.pipe == nil {
		if err := p.start(); err != nil {
			return 0, err
		}
	}
	if _, err := p.pipe.Write(frame); err != nil {
		return 0, fmt.Errorf("store %s: %w", p.key(), err)
	}
	offset = p.size
	p.size += int64(len(frame))
	return offset, nil
}

// Close ends the pack and waits until it is stored. A pack without chunks is
// not stored at all.
func (p *PackWriter) Close() error {
	if p.closed {
		return p.err
	}
	p.closed = true
	if p.pipe == nil {
		p.b.packEmpty(p.id)
		return nil
	}
	p.pipe.closeWrite(io.EOF)
	<-p.done
	return p.err
}

func (p *PackWriter) key() string { return p.b.e.packKey(p.b.label, p.number) }

// errAborted ends the uploads of a backup that is given up.
var errAborted = errors.New("the backup was given up")

func (p *PackWriter) start() error {
	pipe, done := newPipe(), make(chan struct{})
	if err := p.b.packStarted(uploading{pipe, done}); err != nil {
		return err
	}
	p.pipe, p.done = pipe, done
	// A driver that waits for the next bytes does not see the context end.
	stop := context.AfterFunc(p.ctx, func() {
		p.pipe.closeWrite(p.ctx.Err())
		p.pipe.closeRead(p.ctx.Err())
	})
	go func() {
		defer close(p.done)
		defer p.b.packEnded(pipe)
		defer stop()
		p.err = p.upload()
		p.pipe.closeRead(cmp.Or(p.err, errors.New("the store took it before its end")))
	}()
	return nil
}

// upload streams the pipe into the store. Digest and encryption run here, on
// the goroutine of the upload.
func (p *PackWriter) upload() error {
	body := &hashingReader{r: p.pipe, h: sha256.New()}
	if keys := p.b.e.r.keys; keys != nil {
		r, err := age.EncryptReader(p.pipe, keys.data.recipients...)
		if err != nil {
			return fmt.Errorf("encrypt %s: %w", p.key(), err)
		}
		body.r = r
	}
	info, err := p.b.e.r.store.Put(p.ctx, p.key(), body, object.PutOptions{IfAbsent: true})
	if err != nil {
		return fmt.Errorf("store %s: %w", p.key(), err)
	}
	// All of size was appended: Put read up to io.EOF, which Close sent.
	ref := PackRef{ID: p.id, Label: p.b.label, Number: p.number, Size: body.n, Plain: p.size}
	body.h.Sum(ref.SHA256[:0])
	p.b.packStored(p.key(), ref)
	if info.Size != body.n {
		return fmt.Errorf("store %s: %d bytes are stored, %d were sent", p.key(), info.Size, body.n)
	}
	return nil
}

// hashingReader counts and digests what is read.
type hashingReader struct {
	r io.Reader
	h hash.Hash
	n int64
}

func (r *hashingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	r.n += int64(n)
	return n, err
}

// EncodeChunk compresses plain (1 to MaxChunk bytes) into a frame appended to
// dst, and returns both with the Chunk that describes the frame; Pack and
// Offset are for the caller to fill in, from PackWriter.
func EncodeChunk(enc *codec.Encoder, dst, plain []byte) ([]byte, Chunk, error) {
	if len(plain) == 0 || len(plain) > MaxChunk {
		return nil, Chunk{}, fmt.Errorf("encode a chunk of %d bytes: 1 to %d are allowed", len(plain), MaxChunk)
	}
	at := len(dst)
	dst, err := enc.Append(dst, plain)
	if err != nil {
		return nil, Chunk{}, fmt.Errorf("encode a chunk: %w", err)
	}
	return dst, Chunk{
		Stored: len(dst) - at,
		Plain:  len(plain),
		XXH3:   xxh3.Hash128(plain).Bytes(),
		CRC:    crc32.Checksum(dst[at:], castagnoli),
	}, nil
}
