package repo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/walkeep/walkeep/repo/codec"
)

// maxLine is the longest line of a manifest: a file of about 800 GiB in
// chunks of 1 MiB. (Servers cut relations at 1 GiB.)
const maxLine = 64 << 20

// ManifestReader reads a manifest entry by entry, in constant memory.
type ManifestReader struct {
	r    *Repository
	ctx  context.Context
	key  string
	file *os.File
	want Summary
	// section is used instead of file, and partial leaves the rules of a walk
	// unchecked: of a part of a journal.
	section *io.SectionReader
	partial bool

	lines  *bufio.Reader
	long   []byte // a line longer than the buffer of lines
	peeked []byte // the first file line, met while reading the packs
	header Header
	packs  map[int]PackRef

	rules   walkRules
	count   counts
	scan    lineScanner
	entry   FileEntry
	extents []Extent // the room that entry.Extents uses, if it has any
	names   map[string]string
	err     error
}

// OpenManifest fetches a backup's manifest into a temporary file, verifies it
// against the summary, and opens it: what Header, Packs and Next return later
// was covered by that digest. Close it.
func (e *Epoch) OpenManifest(ctx context.Context, s Summary) (*ManifestReader, error) {
	file, err := e.r.tempFile()
	if err != nil {
		return nil, err
	}
	m := &ManifestReader{r: e.r, ctx: ctx, key: e.manifestKey(s.Label), file: file, want: s, names: map[string]string{}}
	if err = m.fetch(); err == nil {
		err = m.Rewind()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return m, nil
}

func (m *ManifestReader) fetch() error {
	want := m.want.Manifest
	n, sum, err := m.r.fetch(m.ctx, m.key, want.Size, m.file)
	switch {
	case errors.Is(err, ErrNotFound):
		return &DamageError{Key: m.key, Why: "it is missing", Err: ErrNotFound}
	case err != nil:
		return err
	case n != want.Size:
		return damaged(m.key, "it does not have the %d bytes that the summary says", want.Size)
	case sum != want.SHA256:
		return damaged(m.key, "its SHA-256 is not the one in the summary")
	}
	return nil
}

// fetch copies an object into a temporary file, and returns how long it is and
// its SHA-256, for the caller to judge. Of one that is longer than size, one byte
// more is read.
func (r *Repository) fetch(ctx context.Context, key string, size int64, file io.Writer) (n int64, sum string, err error) {
	body, err := r.store.Get(ctx, key, 0, size+1)
	if err != nil {
		return 0, "", fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	src := &sourceReader{r: body}
	h := sha256.New()
	n, err = io.Copy(io.MultiWriter(file, h), src)
	switch {
	case src.err != nil:
		return n, "", fmt.Errorf("read %s: %w", key, src.err)
	case err != nil:
		return n, "", fmt.Errorf("write a temporary file: %w", err)
	}
	return n, hex.EncodeToString(h.Sum(nil)), nil
}

// Rewind makes Next begin again.
func (m *ManifestReader) Rewind() error {
	var stored io.ReadSeeker = m.section
	if m.section == nil {
		stored = m.file
	}
	if _, err := stored.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read a temporary file: %w", err)
	}
	var r io.Reader = stored
	if m.r.Encrypted() {
		plain, err := m.r.decrypt(m.ctx, m.key, &sourceReader{r: stored}, false)
		if err != nil {
			return err
		}
		r = plain
	}
	return m.begin(codec.NewReader(r))
}

// begin reads header and pack table from the decompressed manifest.
func (m *ManifestReader) begin(r io.Reader) error {
	m.lines = bufio.NewReaderSize(r, 256<<10)
	m.header, m.packs, m.count, m.err, m.peeked = Header{}, map[int]PackRef{}, counts{}, nil, nil
	err := m.readHeader()
	for err == nil {
		var line []byte
		if line, err = m.line(); err != nil {
			break
		}
		if kindOf(line) != kindPack {
			m.peeked = line
			break
		}
		err = m.readPack(line)
	}
	if err != nil {
		m.err = m.failure(err)
	}
	return m.err
}

// failure makes damage of whatever went wrong after the digest was right.
func (m *ManifestReader) failure(err error) error {
	if errors.Is(err, ErrMismatch) {
		return err
	}
	if err == io.EOF {
		err = errors.New("it ends too early")
	}
	return asDamage(m.key, err)
}

// Header is the manifest's first line.
func (m *ManifestReader) Header() Header { return m.header }

// Packs is the pack table, by id.
func (m *ManifestReader) Packs() map[int]PackRef { return m.packs }

// Close removes the temporary file.
func (m *ManifestReader) Close() error { return m.file.Close() }

// line returns the next line without its newline, valid until the next call.
func (m *ManifestReader) line() ([]byte, error) {
	if line := m.peeked; line != nil {
		m.peeked = nil
		return line, nil
	}
	m.long = m.long[:0]
	for {
		part, err := m.lines.ReadSlice('\n')
		if err == nil && len(m.long) == 0 {
			return part[:len(part)-1], nil
		}
		if len(m.long)+len(part) > maxLine {
			return nil, errors.New("a line is too long")
		}
		m.long = append(m.long, part...)
		switch {
		case err == nil:
			return m.long[:len(m.long)-1], nil
		case err == io.EOF && len(m.long) > 0:
			return nil, errors.New("it ends in mid-line")
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

func kindOf(line []byte) string {
	rest, ok := bytes.CutPrefix(line, []byte(`{"kind":"`))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 || end > 16 {
		return ""
	}
	return string(rest[:end])
}

func (m *ManifestReader) readHeader() error {
	line, err := m.line()
	if err != nil {
		return err
	}
	if kindOf(line) != kindHeader {
		return errors.New("it does not begin with a header")
	}
	if err := json.Unmarshal(line, &m.header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if err := checkFormat(m.key, m.header.Format); err != nil {
		return err
	}
	if m.header.Label != m.want.Label || m.header.SystemID != m.want.SystemID {
		return fmt.Errorf("it is the manifest of %s of %s", m.header.Label, m.header.SystemID)
	}
	m.rules = walkRules{declared: map[uint32]string{}}
	for _, t := range m.header.Tablespaces {
		m.rules.declared[t.OID] = t.Path
	}
	return nil
}

func (m *ManifestReader) readPack(line []byte) error {
	var l packLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	p := PackRef{ID: l.ID, Label: l.Label, Number: l.Number, Size: l.Size, Plain: l.Plain}
	n, err := hex.Decode(p.SHA256[:], []byte(l.SHA256[:min(len(l.SHA256), 64)]))
	_, double := m.packs[p.ID]
	if err != nil || n != 32 || len(l.SHA256) != 64 || double || p.Label == "" ||
		p.ID < 0 || p.ID > 1<<31-1 || p.Plain < 1 || p.Plain > p.Size || !m.r.Encrypted() && p.Plain != p.Size {
		return fmt.Errorf("pack %d is impossible", p.ID)
	}
	m.packs[p.ID] = p
	m.count.Packs++
	return nil
}

// Next returns the next entry, or io.EOF after the last one, when the counts
// of the end line have been checked as well. Its slices are valid until the
// following call. A manifest that breaks a rule is a *DamageError.
func (m *ManifestReader) Next() (FileEntry, error) {
	if m.err != nil {
		return FileEntry{}, m.err
	}
	line, err := m.line()
	switch kind := kindOf(line); {
	case err != nil:
	case kind == kindFile:
		if err = m.readFile(line); err == nil {
			return m.entry, nil
		}
	case kind == kindEnd:
		if err = m.readEnd(line); err == nil {
			m.err = io.EOF
			return FileEntry{}, io.EOF
		}
	default:
		err = fmt.Errorf("a line of kind %q where files are", kind)
	}
	m.err = m.failure(err)
	return FileEntry{}, m.err
}

func (m *ManifestReader) readEnd(line []byte) error {
	var l endLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	if l.counts != m.count {
		return fmt.Errorf("it has %+v, its end says %+v", m.count, l.counts)
	}
	if _, err := m.line(); err != io.EOF {
		return errors.New("it goes on after its end")
	}
	return nil
}

func (m *ManifestReader) readFile(line []byte) error {
	f := &m.entry
	*f = FileEntry{Chunks: f.Chunks[:0], BadPages: f.BadPages[:0]}
	if err := m.scanFile(line, f); err != nil {
		return fmt.Errorf("file line: %w", err)
	}
	var err error
	if m.partial {
		err = checkPath(f.Path)
	} else {
		err = m.rules.check(f)
	}
	if err == nil {
		err = checkContent(f)
	}
	for i := range f.Chunks {
		c := &f.Chunks[i]
		if p, ok := m.packs[c.Pack]; !ok || c.Offset > p.Plain-int64(c.Stored) {
			err = fmt.Errorf("chunk %d is outside its pack", i)
			break
		}
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", f.Path, err)
	}
	m.count.add(f)
	return nil
}

// scanFile decodes a file line. Members it does not know are passed over.
func (m *ManifestReader) scanFile(line []byte, f *FileEntry) error {
	s := &m.scan
	s.b, s.i, s.err = line, 0, nil
	s.expect('{')
	f.CRCUnknown = true
	for n := 0; s.more(n, '}'); n++ {
		name := string(s.text()) // stays on the stack: only compared
		s.expect(':')
		switch name {
		case "path":
			f.Path = string(s.text())
		case "path_b64":
			f.Path = s.base64()
		case "type":
			f.Type = s.fileType()
		case "mode":
			f.Mode = s.octal()
		case "uid":
			f.UID = int(s.bounded(1<<32 - 1))
		case "gid":
			f.GID = int(s.bounded(1<<32 - 1))
		case "owner":
			f.Owner = m.intern(s.text())
		case "owner_b64":
			f.Owner = s.base64()
		case "group":
			f.Group = m.intern(s.text())
		case "group_b64":
			f.Group = s.base64()
		case "mtime":
			f.MTime = s.time()
		case "link":
			f.Link = string(s.text())
		case "link_b64":
			f.Link = s.base64()
		case "size":
			f.Size = s.integer()
		case "crc32c":
			f.CRC, f.CRCUnknown = s.hex32(), false
		case "chunks":
			f.Chunks = s.chunks(f.Chunks[:0])
		case "extents":
			m.extents = s.extents(m.extents[:0])
			f.Extents = m.extents
		case "bad_pages":
			f.BadPages = s.pages(f.BadPages[:0])
		case "detect":
			f.Detect = m.intern(s.text())
		default:
			s.skip(0)
		}
	}
	f.CRCUnknown = f.CRCUnknown && f.Type == RegularFile
	return s.end()
}

// intern keeps one copy of strings that come again and again.
func (m *ManifestReader) intern(b []byte) string {
	if s, ok := m.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(m.names) < 1000 {
		m.names[s] = s
	}
	return s
}

func (s *lineScanner) base64() string {
	b, err := base64.StdEncoding.Strict().DecodeString(string(s.text()))
	if err != nil {
		s.fail("bad base64")
	}
	return string(b)
}

func (s *lineScanner) fileType() FileType {
	switch string(s.text()) {
	case "file":
		return RegularFile
	case "dir":
		return Directory
	case "symlink":
		return Symlink
	}
	s.fail("an unknown type of file")
	return 0
}

func (s *lineScanner) octal() (v uint32) {
	t := s.text()
	if len(t) < 1 || len(t) > 6 {
		s.fail("a bad mode")
	}
	for _, c := range t {
		if c < '0' || c > '7' {
			s.fail("a bad mode")
		}
		v = v<<3 | uint32(c-'0')
	}
	return v
}

func (s *lineScanner) time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(s.text()))
	if err != nil {
		s.fail("a bad time")
	}
	return t.UTC()
}

func (s *lineScanner) hex32() uint32 {
	var b [4]byte
	s.hex(b[:])
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func (s *lineScanner) chunks(list []Chunk) []Chunk {
	s.expect('[')
	for s.more(len(list), ']') {
		var c Chunk
		s.expect('[')
		c.Pack = int(s.bounded(1<<31 - 1))
		s.expect(',')
		c.Offset = s.integer()
		s.expect(',')
		c.Stored = int(s.bounded(maxStoredChunk))
		s.expect(',')
		c.Plain = int(s.bounded(MaxChunk))
		s.expect(',')
		s.hex(c.XXH3[:])
		s.expect(',')
		c.CRC = s.hex32()
		s.expect(']')
		list = append(list, c)
	}
	return list
}

func (s *lineScanner) extents(list []Extent) []Extent {
	if list == nil {
		list = []Extent{} // nil would mean: chunks one after the other
	}
	s.expect('[')
	for s.more(len(list), ']') {
		var x Extent
		s.expect('[')
		x.FileOffset = s.integer()
		s.expect(',')
		x.Length = s.integer()
		s.expect(',')
		x.Chunk = int(s.bounded(1<<31 - 1))
		s.expect(',')
		x.ChunkOffset = s.integer()
		s.expect(']')
		list = append(list, x)
	}
	return list
}

func (s *lineScanner) pages(list []uint32) []uint32 {
	s.expect('[')
	for s.more(len(list), ']') {
		list = append(list, uint32(s.bounded(1<<32-1)))
	}
	return list
}
