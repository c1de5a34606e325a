package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/internal/cores"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
)

// The skippable frames around the body of a WAL object. Decoders pass over
// them, so that "zstd -d" yields the plain file.
const (
	walHeadMagic    = 0x184D2A50
	walTailMagic    = 0x184D2A51
	walChangesMagic = 0x184D2A52
)

const (
	// maxWALHead is the longest head, sealed.
	maxWALHead = 512 << 10
	// walInMemory is the largest plain file whose object is made in memory
	// before it is sent: then its size is known, one request does, and a
	// failed request can be sent again.
	walInMemory = 64 << 20
)

// walTail is the sealed JSON at the end of a WAL object.
type walTail struct {
	Format int    `json:"format"`
	XXH3   string `json:"xxh3"` // XXH3-128 of all bytes before the tail frame
}

// PutWAL stores a file of pg_wal under the key of head.WALName(), if that key
// is free; else ErrExists. body is read from where it stands to its end, and
// hashed again: if it is not what head says, ErrChangedWhileRead and nothing
// is stored.
func (e *Epoch) PutWAL(ctx context.Context, head WALHead, body io.Reader) error {
	return e.putFile(ctx, head.WALName(), head, body)
}

// putFile is PutWAL under the key of a name, which may be one in conflict.
func (e *Epoch) putFile(ctx context.Context, name WALName, head WALHead, body io.Reader) error {
	key, front, err := e.sealHead(name, &head)
	if err != nil {
		return err
	}
	if head.Length > walInMemory {
		return e.streamWAL(ctx, key, head, front, body)
	}
	plain := make([]byte, head.Length+1) // one more, to see a file that grew
	n, err := io.ReadFull(body, plain)
	if err != io.ErrUnexpectedEOF && err != io.EOF {
		return fmt.Errorf("store %s: %w", key, cmp.Or(err, ErrChangedWhileRead))
	}
	plain = plain[:n]
	if int64(n) != head.Length || wal.DigestOf(plain).String() != head.XXH3 {
		return fmt.Errorf("store %s: %w", key, ErrChangedWhileRead)
	}
	made, err := e.r.compressAll(plain)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return e.putMade(ctx, key, front, made)
}

// PutWALBody is PutWAL of a file that the caller has hashed and a WALCompressor made
// into body, for this repository or another that body fits: head is taken at its
// word for what that was.
func (e *Epoch) PutWALBody(ctx context.Context, head WALHead, body *WALBody) error {
	key, front, err := e.sealHead(head.WALName(), &head)
	if err != nil {
		return err
	}
	if body.length != head.Length {
		return fmt.Errorf("store %s: %d bytes, and %d in its head", key, body.length, head.Length)
	}
	return e.putMade(ctx, key, front, body)
}

// sealHead checks a head and makes what is stored of it, and where.
func (e *Epoch) sealHead(name WALName, head *WALHead) (key string, front walFront, err error) {
	if key, err = e.walKey(name); err != nil {
		return "", front, err
	}
	head.Format = Format
	if err := head.check(e, name); err != nil {
		return "", front, fmt.Errorf("store %s: %w", name, err)
	}
	if front.head, err = seal(head); err != nil {
		return "", front, err
	}
	if len(front.head) > maxWALHead {
		return "", front, fmt.Errorf("store %s: its head has %d bytes, more than %d", name, len(front.head), maxWALHead)
	}
	if front.changes, err = e.r.encodeChanges(head.Changes); err != nil {
		return "", front, fmt.Errorf("store %s: %w", name, err)
	}
	return key, front, nil
}

// walFront is what comes before the file in a WAL object, so that one small
// read gets it.
type walFront struct {
	head    []byte // sealed
	changes []byte // encoded; nil: none
}

func (f walFront) frames() []byte {
	b := appendSkippable(nil, walHeadMagic, f.head)
	if f.changes != nil {
		b = appendSkippable(b, walChangesMagic, f.changes)
	}
	return b
}

// putMade makes the object in memory and stores it.
func (e *Epoch) putMade(ctx context.Context, key string, front walFront, body *WALBody) error {
	made, err := e.r.makeWAL(front, body)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return e.putWAL(ctx, key, made, made.Size())
}

// streamWAL makes the object of a segment that is not kept in memory while it
// is sent.
func (e *Epoch) streamWAL(ctx context.Context, key string, head WALHead, front walFront, body io.Reader) error {
	enc, err := e.r.encoder()
	if err != nil {
		return err
	}
	defer e.r.encoders.Put(enc)
	stream, err := e.r.encryptedWAL(front, newWALStream(enc, head, front, body))
	if err != nil {
		return fmt.Errorf("encrypt %s: %w", key, err)
	}
	return e.putWAL(ctx, key, stream, 0)
}

func (e *Epoch) putWAL(ctx context.Context, key string, stream io.Reader, size int64) error {
	if _, err := e.r.store.Put(ctx, key, stream, object.PutOptions{IfAbsent: true, Size: size}); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// WALBody is a file of pg_wal, compressed.
type WALBody struct {
	codec  codec.Codec
	length int64 // of the plain file, bytes
	frames []*[]byte
}

// Fits reports whether a repository stores files compressed like this. No body
// fits no repository.
func (b *WALBody) Fits(r *Repository) bool { return b != nil && b.codec == r.codec }

// WALFrame is how many plain bytes a frame of a WAL object holds. Smaller ones
// cost stored size, larger ones memory, and spread worse over cores.
const WALFrame = 1 << 20

// WALCompressor compresses a file of pg_wal as a repository wants it, piece by
// piece, with as many cores as there are: whoever waits is PostgreSQL's archiver,
// and it waits for each segment. One goroutine uses it. Call End in any case.
type WALCompressor struct {
	r    *Repository
	g    errgroup.Group
	body *WALBody
}

// CompressWAL begins with an empty file.
func (r *Repository) CompressWAL() *WALCompressor {
	return &WALCompressor{r: r, body: &WALBody{codec: r.codec}}
}

// Add adds the next WALFrame bytes of the file; fewer only at its end. They are
// used, but not changed, until done is called, if it is not nil.
func (c *WALCompressor) Add(plain []byte, done func()) {
	c.body.length += int64(len(plain))
	frame := new([]byte)
	c.body.frames = append(c.body.frames, frame)
	c.g.Go(func() (err error) {
		if done != nil {
			defer done()
		}
		*frame, err = c.r.walFrame(plain)
		return err
	})
}

// End waits for what was added, and returns the file.
func (c *WALCompressor) End() (*WALBody, error) {
	if err := c.g.Wait(); err != nil {
		return nil, err
	}
	return c.body, nil
}

// compressAll compresses a file in memory. One without bytes has a frame too.
func (r *Repository) compressAll(plain []byte) (*WALBody, error) {
	c := r.CompressWAL()
	for ; len(plain) > WALFrame; plain = plain[WALFrame:] {
		c.Add(plain[:WALFrame], nil)
	}
	c.Add(plain, nil)
	return c.End()
}

// press is where a frame is made: an encoder, and room for what it makes. Both
// are used again and again; there are as many as cores, so that files that are
// compressed at the same time do not take memory for each.
type press struct {
	enc  *codec.Encoder
	room []byte
}

func newPresses() chan *press {
	all := make(chan *press, max(2, cores.Count()))
	for range cap(all) {
		all <- &press{}
	}
	return all
}

// walFrame compresses a frame, and waits for a core to do so. What waits to be
// sent takes no more memory than it has bytes.
func (r *Repository) walFrame(plain []byte) (frame []byte, err error) {
	b := <-r.presses
	defer func() { r.presses <- b }()
	if b.enc == nil {
		if b.enc, err = codec.NewEncoder(r.codec); err != nil {
			return nil, err
		}
		b.room = make([]byte, 0, codec.Bound(WALFrame))
	}
	frame, err = b.enc.Append(b.room, plain)
	return bytes.Clone(frame), err
}

// makeWAL makes a WAL object in memory: what walStream yields.
func (r *Repository) makeWAL(front walFront, body *WALBody) (sizedReader, error) {
	parts := [][]byte{front.frames()}
	for _, f := range body.frames {
		parts = append(parts, *f)
	}
	var sum xxh3.Hasher
	sum.Reset()
	for _, p := range parts {
		_, _ = sum.Write(p)
	}
	tail, err := appendWALTail(nil, sum.Sum128())
	if err != nil {
		return nil, err
	}
	made := newPartsReader(append(parts, tail))
	if r.keys == nil {
		return made, nil
	}
	stream, err := r.encryptedWAL(front, made)
	if err != nil {
		return nil, err
	}
	sealed, err := io.ReadAll(stream)
	return bytes.NewReader(sealed), err
}

// encryptedWAL is the stream as it is stored: as it is, or encrypted.
func (r *Repository) encryptedWAL(front walFront, stream io.Reader) (io.Reader, error) {
	if r.keys == nil {
		return stream, nil
	}
	return r.keys.encryptWAL(front, stream)
}

// appendWALTail ends a WAL object; sum is of all bytes of it so far.
func appendWALTail(dst []byte, sum xxh3.Uint128) ([]byte, error) {
	b := sum.Bytes()
	tail, err := seal(walTail{Format: Format, XXH3: hex.EncodeToString(b[:])})
	if err != nil {
		return nil, err
	}
	return appendSkippable(dst, walTailMagic, tail), nil
}

// encoder lends an encoder; give it back to r.encoders.
func (r *Repository) encoder() (*codec.Encoder, error) {
	if enc, ok := r.encoders.Get().(*codec.Encoder); ok {
		return enc, nil
	}
	return codec.NewEncoder(r.codec)
}

// walStream yields a WAL object as it is before encryption.
type walStream struct {
	enc    *codec.Encoder
	head   WALHead
	body   io.Reader
	digest wal.Digester // of the plain file
	stored xxh3.Hasher  // of what was yielded
	plain  []byte
	out    []byte // what is next
	unread []byte // the part of out that was not read yet
	length int64
	frames int
	ended  bool
	err    error
}

func newWALStream(enc *codec.Encoder, head WALHead, front walFront, body io.Reader) *walStream {
	s := &walStream{enc: enc, head: head, body: body}
	s.plain = make([]byte, min(WALFrame, max(1, head.Length)))
	s.stored.Reset()
	s.out = front.frames()
	_, _ = s.stored.Write(s.out)
	s.unread = s.out
	return s
}

func appendSkippable(dst []byte, magic uint32, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}

func (s *walStream) Read(p []byte) (int, error) {
	for len(s.unread) == 0 && s.err == nil {
		s.err = s.next()
	}
	if len(s.unread) == 0 {
		return 0, s.err
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// next fills out with the next frame.
func (s *walStream) next() error {
	if s.ended {
		return io.EOF
	}
	n, err := io.ReadFull(s.body, s.plain)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read it: %w", err)
	}
	if n == 0 && s.frames > 0 {
		return s.end()
	}
	s.frames++
	s.length += int64(n)
	_, _ = s.digest.Write(s.plain[:n])
	if s.out, err = s.enc.Append(s.out[:0], s.plain[:n]); err != nil {
		return err
	}
	_, _ = s.stored.Write(s.out)
	s.unread = s.out
	return nil
}

// end yields the tail, or an error that keeps the object from being stored.
func (s *walStream) end() error {
	if s.length != s.head.Length || s.digest.Digest().String() != s.head.XXH3 {
		return ErrChangedWhileRead
	}
	var err error
	if s.out, err = appendWALTail(s.out[:0], s.stored.Sum128()); err != nil {
		return err
	}
	s.unread, s.ended = s.out, true
	return nil
}

// headStanza is the type of the stanza that carries the head in the header of
// an encrypted WAL object, and its one argument, the version.
const (
	headStanza        = "walkeep-head"
	changesStanza     = "walkeep-changes"
	headStanzaVersion = "1"
)

// encryptWAL makes the age file of a WAL object: to the data recipients, but
// with the head, encrypted to the metadata recipients, in its first stanza.
func (k *Keys) encryptWAL(front walFront, stream io.Reader) (io.Reader, error) {
	head, err := k.metadata.encrypt(front.head)
	if err != nil {
		return nil, err
	}
	first := &headRecipient{body: head, r: k.data.recipients[0]}
	if front.changes != nil {
		if first.changes, err = k.metadata.encrypt(front.changes); err != nil {
			return nil, err
		}
	}
	return age.EncryptReader(stream, append([]age.Recipient{first}, k.data.recipients[1:]...)...)
}

// headRecipient puts the stanza with the head before that of a real
// recipient, whose labels it passes on: age refuses recipients whose labels
// differ.
type headRecipient struct {
	body    []byte
	changes []byte // nil: none
	r       age.Recipient
}

func (h *headRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := h.WrapWithLabels(fileKey)
	return stanzas, err
}

func (h *headRecipient) WrapWithLabels(fileKey []byte) (stanzas []*age.Stanza, labels []string, err error) {
	if r, ok := h.r.(age.RecipientWithLabels); ok {
		stanzas, labels, err = r.WrapWithLabels(fileKey)
	} else {
		stanzas, err = h.r.Wrap(fileKey)
	}
	front := []*age.Stanza{{Type: headStanza, Args: []string{headStanzaVersion}, Body: h.body}}
	if h.changes != nil {
		front = append(front, &age.Stanza{Type: changesStanza, Args: []string{headStanzaVersion}, Body: h.changes})
	}
	return append(front, stanzas...), labels, err
}
