package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo/codec"
)

// firstRead is how much of a WAL object is read to get at its head: more than
// most heads need. wholeHead is enough for all, also encrypted and in base64.
const (
	firstRead = 8 << 10
	wholeHead = 1 << 20
)

// WALHead reads the head of an archived file with one small ranged read.
// ErrNotFound, *DamageError, ErrNoIdentity.
func (e *Epoch) WALHead(ctx context.Context, name WALName) (WALHead, error) {
	key, err := e.walKey(name)
	if err != nil {
		return WALHead{}, err
	}
	var sealed []byte
	for _, n := range []int64{firstRead, wholeHead} {
		var b []byte
		if b, err = e.r.readStart(ctx, key, n); err != nil {
			return WALHead{}, err
		}
		if sealed, err = e.r.headFrom(ctx, key, b); !errors.Is(err, errHeadShort) {
			break
		}
	}
	if err != nil {
		return WALHead{}, asDamage(key, err)
	}
	return e.parseHead(key, name, sealed)
}

func (r *Repository) readStart(ctx context.Context, key string, n int64) ([]byte, error) {
	body, err := r.store.Get(ctx, key, 0, n)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

// errHeadShort: the head goes on after what was read.
var errHeadShort = errors.New("the head is cut off")

// headFrom finds the sealed head in the first bytes of a WAL object.
func (r *Repository) headFrom(ctx context.Context, key string, b []byte) ([]byte, error) {
	if !r.Encrypted() && !bytes.HasPrefix(b, []byte(ageIntro)) {
		return headFrame(b)
	}
	file, err := headFromAge(b)
	if err != nil {
		return nil, err
	}
	src := &sourceReader{r: bytes.NewReader(file)}
	plain, err := r.decrypt(ctx, key, src, false)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// headFrame reads the head from the skippable frame that begins an object.
func headFrame(b []byte) ([]byte, error) {
	if len(b) < 8 {
		return nil, errHeadShort
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if binary.LittleEndian.Uint32(b) != walHeadMagic || n > maxWALHead {
		return nil, errors.New("it does not begin with a head")
	}
	if uint32(len(b)-8) < n {
		return nil, errHeadShort
	}
	return b[8 : 8+n], nil
}

// headFromAge reads the body of the first stanza of an age header, which must
// be a walkeep-head: an age file of its own. (C2SP age: a stanza is a line of
// arguments and lines of base64, 64 characters each, the last one shorter.)
func headFromAge(b []byte) ([]byte, error) {
	body, _, err := stanza(b, ageIntro+"-> "+headStanza+" "+headStanzaVersion+"\n")
	return body, err
}

func (e *Epoch) parseHead(key string, name WALName, sealed []byte) (WALHead, error) {
	var h WALHead
	if err := unseal(sealed, &h); err != nil {
		return WALHead{}, damaged(key, "its head: %v", err)
	}
	if err := checkFormat(key, h.Format); err != nil {
		return WALHead{}, err
	}
	if err := h.check(e, name); err != nil {
		return WALHead{}, asDamage(key, err)
	}
	return h, nil
}

// GetWAL writes an archived file to w. Only when it returned no error were the
// bytes what was archived: they are verified to the last one. ErrNotFound,
// *DamageError, ErrNoIdentity, or w's own error.
func (e *Epoch) GetWAL(ctx context.Context, name WALName, w io.Writer) (WALHead, error) {
	key, err := e.walKey(name)
	if err != nil {
		return WALHead{}, err
	}
	body, err := e.r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return WALHead{}, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	src := &sourceReader{r: body}
	plain := io.Reader(src)
	if e.r.Encrypted() {
		if plain, err = e.r.decrypt(ctx, key, src, true); err != nil {
			return WALHead{}, err
		}
	}
	g := &walReader{e: e, key: key, name: name, frames: codec.NewFrameReader(plain), dec: codec.NewDecoder(), w: w}
	err = g.read()
	switch {
	case err == nil:
		return g.head, nil
	case g.writeErr != nil:
		return WALHead{}, fmt.Errorf("write %s: %w", name, g.writeErr)
	case errors.Is(err, ErrMismatch):
		return WALHead{}, err
	}
	return WALHead{}, src.failure(key, err)
}

// walReader takes a WAL object apart: a head frame, body frames, a tail
// frame, and nothing else but skippable frames of later versions in between.
type walReader struct {
	e      *Epoch
	key    string
	name   WALName
	frames *codec.FrameReader
	dec    *codec.Decoder
	w      io.Writer

	head     WALHead
	stored   xxh3.Hasher
	plain    []byte
	writeErr error
}

func (g *walReader) read() error {
	f, err := g.frames.Next()
	if err == io.EOF || err == nil && f.Magic != walHeadMagic {
		return errors.New("it does not begin with a head")
	}
	if err != nil {
		return err
	}
	if g.head, err = g.e.parseHead(g.key, g.name, f.Payload); err != nil {
		return err
	}
	g.stored.Reset()
	var digest wal.Digester
	var length int64
	for f.Magic != walTailMagic {
		_, _ = g.stored.Write(f.Raw)
		if f.Magic == 0 {
			if length += int64(f.Plain); length > g.head.Length {
				return fmt.Errorf("it holds more than the %d bytes that its head says", g.head.Length)
			}
			if g.plain, err = g.dec.Append(g.plain[:0], f.Raw, f.Plain); err != nil {
				return err
			}
			_, _ = digest.Write(g.plain)
			if _, g.writeErr = g.w.Write(g.plain); g.writeErr != nil {
				return g.writeErr
			}
		}
		if f, err = g.frames.Next(); err == io.EOF {
			return errors.New("it ends without a tail")
		}
		if err != nil {
			return err
		}
	}
	if err := g.checkTail(f.Payload); err != nil {
		return err
	}
	if length != g.head.Length || digest.Digest().String() != g.head.XXH3 {
		return errors.New("its content is not what its head says")
	}
	if _, err := g.frames.Next(); err != io.EOF {
		return errors.Join(errors.New("it goes on after its tail"), err)
	}
	return nil
}

// checkTail verifies the tail.
func (g *walReader) checkTail(payload []byte) error {
	var t walTail
	if err := unseal(payload, &t); err != nil {
		return fmt.Errorf("its tail: %w", err)
	}
	sum := g.stored.Sum128().Bytes()
	if t.XXH3 != hex.EncodeToString(sum[:]) {
		return errors.New("the XXH3 in its tail does not match")
	}
	return nil
}
