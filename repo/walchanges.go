package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/codec"
)

const (
	// maxChanges is the longest block changes that are stored, compressed and
	// plain; a segment with more is one that is not understood.
	maxChanges = 4 << 20
	// changesRead is how much of a WAL object is read at first to get at its
	// block changes: more than most have.
	changesRead = 64 << 10
)

// ErrNoChanges: the segment is there, but nothing was recorded of what it
// changes.
var ErrNoChanges = errors.New("the WAL object has no block changes")

// changesJSON are block changes as they are stored, sealed.
type changesJSON struct {
	Format    int             `json:"format"`
	Unknown   string          `json:"unknown,omitempty"`
	Minimal   bool            `json:"minimal,omitempty"`
	Open      *openJSON       `json:"open,omitempty"`
	Rest      *restJSON       `json:"rest,omitempty"`
	Relations []relationsJSON `json:"relations"`
}

type openJSON struct {
	LSN  pg.LSN `json:"lsn"`
	Data []byte `json:"data"`
}

type restJSON struct {
	Length uint32 `json:"length"`
	Data   []byte `json:"data"`
}

type relationsJSON struct {
	Tablespace uint32  `json:"tablespace"`
	Database   uint32  `json:"database"`
	Number     uint32  `json:"number"`
	Limit      *uint32 `json:"limit,omitempty"`
	Blocks     []byte  `json:"blocks,omitempty"` // varints: the first, then differences
}

// encodeChanges is nil for nil.
func (r *Repository) encodeChanges(c *pg.BlockChanges) ([]byte, error) {
	if c == nil {
		return nil, nil
	}
	b, err := encodeChanges(c)
	if err == nil && len(b) > maxChanges {
		b, err = encodeChanges(&pg.BlockChanges{Unknown: "too many changes", Minimal: c.Minimal})
	}
	return b, err
}

func encodeChanges(c *pg.BlockChanges) ([]byte, error) {
	j := changesJSON{Format: Format, Unknown: c.Unknown, Minimal: c.Minimal, Relations: []relationsJSON{}}
	if c.Unknown == "" {
		if c.Open != nil {
			j.Open = &openJSON{c.Open.LSN, c.Open.Data}
		}
		if c.Rest != nil {
			j.Rest = &restJSON{c.Rest.Length, c.Rest.Data}
		}
		for f, rc := range c.Relations {
			r := relationsJSON{Tablespace: f.Tablespace, Database: f.Database, Number: f.Number}
			if rc.Limited {
				r.Limit = &rc.Limit
			}
			last := uint32(0)
			for _, n := range rc.Blocks {
				r.Blocks = binary.AppendUvarint(r.Blocks, uint64(n-last))
				last = n
			}
			j.Relations = append(j.Relations, r)
		}
		slices.SortFunc(j.Relations, func(a, b relationsJSON) int {
			return cmp.Or(cmp.Compare(a.Tablespace, b.Tablespace), cmp.Compare(a.Database, b.Database), cmp.Compare(a.Number, b.Number))
		})
	}
	sealed, err := seal(j)
	if err != nil {
		return nil, err
	}
	if len(sealed) > maxChanges {
		return sealed, nil // too long in any case
	}
	var b bytes.Buffer
	w, err := codec.NewWriter(&b, codec.Codec{Name: codec.Zstd, Level: 1})
	if err == nil {
		_, err = w.Write(sealed)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encode block changes: %w", err)
	}
	return b.Bytes(), nil
}

// decodeChanges is the reverse; its input comes from outside.
func decodeChanges(b []byte) (*pg.BlockChanges, error) {
	sealed, err := io.ReadAll(io.LimitReader(codec.NewReader(bytes.NewReader(b)), maxChanges+1))
	if err != nil {
		return nil, err
	}
	var j changesJSON
	if err := unseal(sealed, &j); err != nil {
		return nil, err
	}
	if j.Format != Format {
		return nil, fmt.Errorf("format %d", j.Format)
	}
	c := &pg.BlockChanges{Unknown: j.Unknown, Minimal: j.Minimal, Relations: map[pg.RelFile]*pg.RelChanges{}}
	if j.Open != nil {
		c.Open = &pg.OpenRecord{LSN: j.Open.LSN, Data: j.Open.Data}
	}
	if j.Rest != nil {
		c.Rest = &pg.RecordRest{Length: j.Rest.Length, Data: j.Rest.Data}
	}
	for _, r := range j.Relations {
		rc := &pg.RelChanges{}
		if r.Limit != nil {
			rc.Limited, rc.Limit = true, *r.Limit
		}
		for last, rest := uint64(0), r.Blocks; len(rest) > 0; {
			d, n := binary.Uvarint(rest)
			if n <= 0 || d > 1<<32-1 || last+d > 1<<32-1 {
				return nil, errors.New("block numbers that cannot be")
			}
			last += d
			rc.Blocks = append(rc.Blocks, uint32(last))
			rest = rest[n:]
		}
		c.Relations[pg.RelFile{Tablespace: r.Tablespace, Database: r.Database, Number: r.Number}] = rc
	}
	return c, nil
}

// WALChanges reads what an archived segment changes, with one small ranged
// read, or two if there is much. ErrNotFound: no such segment. ErrNoChanges:
// none were stored with it. *DamageError, ErrNoIdentity.
func (e *Epoch) WALChanges(ctx context.Context, segment pg.SegmentName) (*pg.BlockChanges, error) {
	key := e.segmentKey(segment)
	for n := int64(changesRead); ; n = 2 * (maxWALHead + maxChanges) {
		b, err := e.r.readStart(ctx, key, n)
		if err != nil {
			return nil, err
		}
		encoded, err := e.r.changesFrom(ctx, key, b)
		if errors.Is(err, errHeadShort) && n == changesRead && int64(len(b)) == n {
			continue
		}
		var c *pg.BlockChanges
		if err == nil {
			c, err = decodeChanges(encoded)
		}
		if err != nil && !errors.Is(err, ErrNoChanges) && !errors.Is(err, ErrNoIdentity) {
			err = asDamage(key, err)
		}
		return c, err
	}
}

// changesFrom finds the encoded block changes in the beginning of a WAL object.
func (r *Repository) changesFrom(ctx context.Context, key string, b []byte) ([]byte, error) {
	if !r.Encrypted() {
		head, err := headFrame(b)
		if err != nil {
			return nil, err
		}
		rest := b[8+len(head):]
		if len(rest) < 8 {
			return nil, errHeadShort
		}
		n := binary.LittleEndian.Uint32(rest[4:])
		if binary.LittleEndian.Uint32(rest) != walChangesMagic {
			return nil, ErrNoChanges
		}
		if n > maxChanges {
			return nil, errors.New("block changes of an impossible length")
		}
		if uint32(len(rest)-8) < n {
			return nil, errHeadShort
		}
		return rest[8 : 8+n], nil
	}
	_, rest, err := stanza(b, ageIntro+"-> "+headStanza+" "+headStanzaVersion+"\n")
	if err != nil {
		return nil, err
	}
	begin := "-> " + changesStanza + " " + headStanzaVersion + "\n"
	if len(rest) < len(begin) {
		return nil, errHeadShort
	}
	if !bytes.HasPrefix(rest, []byte(begin)) {
		return nil, ErrNoChanges
	}
	file, _, err := stanza(rest, begin)
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

// stanza reads the body of a stanza of an age header that begins with begin,
// and what comes after it.
func stanza(b []byte, begin string) (body, rest []byte, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(begin))
	if !ok {
		return nil, nil, errors.New("it does not begin with a head in an age header")
	}
	var text []byte
	for {
		end := bytes.IndexByte(rest[:min(len(rest), 65)], '\n')
		switch {
		case end < 0 && len(rest) > 64:
			return nil, nil, errors.New("a line of the age header is too long")
		case end < 0:
			return nil, nil, errHeadShort
		}
		text = append(text, rest[:end]...)
		rest = rest[end+1:]
		if end < 64 {
			break
		}
	}
	encoding := base64.RawStdEncoding.Strict()
	if bytes.IndexByte(text, '\r') >= 0 { // the decoder would pass over it
		return nil, nil, errors.New("the head in the age header is not base64")
	}
	body, err = encoding.AppendDecode(nil, text)
	if err != nil {
		return nil, nil, errors.New("the head in the age header is not base64")
	}
	return body, rest, nil
}
