package repo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"filippo.io/age"
	"github.com/zeebo/xxh3"

	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
)

// Sizes of the age format (C2SP age, "STREAM"): the payload is cut into
// chunks, each with a tag; before it come a header and a nonce.
const (
	ageChunk    = 64 << 10
	ageOverhead = 16
	ageNonce    = 16
)

// agePayload is how many bytes the payload of n plain bytes takes.
func agePayload(n int64) int64 {
	return n + max(1, (n+ageChunk-1)/ageChunk)*ageOverhead
}

// PackReader reads chunks of one pack. Many goroutines may use it.
type PackReader struct {
	r   *Repository
	ref PackRef
	key string

	// Of an encrypted pack: what every ReadRange needs again.
	header  []byte // with the nonce
	final   []byte // the last encrypted chunk
	fileKey age.Identity
}

// OpenPack opens a pack. On an encrypted repository this reads its header
// and its end; else nothing.
func (e *Epoch) OpenPack(ctx context.Context, ref PackRef) (*PackReader, error) {
	p := &PackReader{r: e.r, ref: ref, key: e.packKey(ref.Label, ref.Number)}
	if !e.r.Encrypted() {
		return p, nil
	}
	payload := agePayload(ref.Plain)
	head := ref.Size - payload
	if head <= ageNonce || head > 1<<20 {
		return nil, damaged(p.key, "%d bytes cannot be an encrypted pack of %d", ref.Size, ref.Plain)
	}
	ids, err := e.r.identities(p.key, true)
	if err != nil {
		return nil, err
	}
	if p.header, err = p.stored(ctx, 0, head); err != nil {
		return nil, err
	}
	last := (payload - 1) / (ageChunk + ageOverhead) * (ageChunk + ageOverhead)
	if p.final, err = p.stored(ctx, head+last, payload-last); err != nil {
		return nil, err
	}
	fileKey, err := age.DecryptHeader(p.header[:head-ageNonce], ids...)
	if err != nil {
		return nil, e.r.decryptFailure(ctx, p.key, &sourceReader{}, true, err)
	}
	p.fileKey = age.NewInjectedFileKeyIdentity(fileKey)
	return p, nil
}

// stored reads a few stored bytes.
func (p *PackReader) stored(ctx context.Context, offset, n int64) ([]byte, error) {
	body, err := p.get(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, p.short(err)
	}
	return b, nil
}

// get opens a range of stored bytes. A pack that a manifest names and that is
// not there is damage.
func (p *PackReader) get(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	body, err := p.r.store.Get(ctx, p.key, offset, n)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, &DamageError{Key: p.key, Why: "it is missing", Err: ErrNotFound}
	case errors.Is(err, object.ErrBadRange):
		return nil, damaged(p.key, "it is shorter than the manifest says")
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", p.key, err)
	}
	return body, nil
}

func (p *PackReader) short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged(p.key, "it is shorter than the manifest says")
	}
	return fmt.Errorf("read %s: %w", p.key, err)
}

// ReadRange reads n plain bytes from an offset of the plain pack with one
// ranged read of the store: as many neighbouring chunks as the caller likes.
// The reader yields exactly n bytes, or an error: a *DamageError if the pack is
// shorter or does not decrypt.
func (p *PackReader) ReadRange(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	if offset < 0 || n < 0 || offset > p.ref.Plain-n {
		return nil, fmt.Errorf("read %d bytes at %d of %s: it has %d", n, offset, p.key, p.ref.Plain)
	}
	if n == 0 {
		return io.NopCloser(eofReader{}), nil
	}
	if p.fileKey == nil {
		body, err := p.get(ctx, offset, n)
		if err != nil {
			return nil, err
		}
		return &rangeReader{p: p, r: body, c: body, left: n, src: &sourceReader{}}, nil
	}
	first := offset / ageChunk * (ageChunk + ageOverhead)
	last := min(agePayload(p.ref.Plain), ((offset+n-1)/ageChunk+1)*(ageChunk+ageOverhead))
	at := int64(len(p.header)) + first
	body, err := p.get(ctx, at, last-first)
	if err != nil {
		return nil, err
	}
	src := &sourceReader{r: body}
	plain, _, err := age.DecryptReaderAt(&rangeSource{p: p, body: src, at: at}, p.ref.Size, p.fileKey)
	if err != nil {
		body.Close()
		return nil, src.failure(p.key, err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(plain, offset, n), 4*ageChunk)
	return &rangeReader{p: p, r: r, c: body, left: n, src: src}, nil
}

// rangeSource is the encrypted pack as age wants it: header and end from
// memory, all between from one ranged read, in order.
type rangeSource struct {
	p    *PackReader
	body io.Reader
	at   int64 // offset in the object of body's next byte
}

func (s *rangeSource) ReadAt(b []byte, offset int64) (int, error) {
	if offset == s.at {
		n, err := io.ReadFull(s.body, b)
		s.at += int64(n)
		return n, err
	}
	end := s.p.ref.Size - int64(len(s.p.final))
	switch {
	case offset < int64(len(s.p.header)):
		n := copy(b, s.p.header[offset:])
		if n < len(b) {
			return n, io.EOF // age reads ahead: it has the header then
		}
		return n, nil
	case offset >= end:
		n := copy(b, s.p.final[min(int64(len(s.p.final)), offset-end):])
		if n < len(b) {
			return n, io.EOF
		}
		return n, nil
	}
	return 0, fmt.Errorf("read at %d, which is not in the range", offset)
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

// rangeReader yields exactly the bytes that were asked for.
type rangeReader struct {
	p    *PackReader
	r    io.Reader
	c    io.Closer
	left int64
	src  *sourceReader
}

func (r *rangeReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	switch {
	case err == nil || err == io.EOF && r.left == 0:
		return n, nil
	case r.p.fileKey == nil || err == io.EOF:
		return n, r.p.short(err)
	}
	return n, r.src.failure(r.p.key, err)
}

func (r *rangeReader) Close() error { return r.c.Close() }

// DecodeChunk checks frame, which is what the pack holds at c, decodes it,
// and appends its data to dst. *DamageError names the pack.
func (p *PackReader) DecodeChunk(dec *codec.Decoder, dst, frame []byte, c Chunk) ([]byte, error) {
	bad := func(why string) error { return damaged(p.key, "the chunk at offset %d: %s", c.Offset, why) }
	if len(frame) != c.Stored || crc32.Checksum(frame, castagnoli) != c.CRC {
		return nil, bad("its CRC-32C does not match")
	}
	if c.Plain < 1 || c.Plain > MaxChunk {
		return nil, bad("impossible length")
	}
	at := len(dst)
	dst, err := dec.Append(dst, frame, c.Plain)
	if err != nil {
		return nil, bad(err.Error())
	}
	if xxh3.Hash128(dst[at:]).Bytes() != c.XXH3 {
		return nil, bad("its XXH3 does not match")
	}
	return dst, nil
}
