package repo

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/walkeep/walkeep/repo/codec"
)

// tempFile is an open file without a name, so that a killed process leaves
// nothing behind.
func (r *Repository) tempFile() (*os.File, error) {
	f, err := os.CreateTemp(r.tempDir, "walkeep-*")
	if err != nil {
		return nil, fmt.Errorf("create a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("create a temporary file: %w", err)
	}
	return f, nil
}

// fileSpool keeps the file lines of a manifest, compressed, in a temporary
// file until the lines that come before them are known.
type fileSpool struct {
	file  *os.File
	codec codec.Codec
	w     io.WriteCloser
	line  []byte
	count counts
	rules walkRules
}

func (r *Repository) newFileSpool() (*fileSpool, error) {
	f, err := r.tempFile()
	if err != nil {
		return nil, err
	}
	w, err := codec.NewWriter(f, r.manifestCodec)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileSpool{file: f, w: w, codec: r.manifestCodec, rules: walkRules{collected: map[uint32]string{}}}, nil
}

func (s *fileSpool) add(f *FileEntry) error {
	err := s.rules.check(f)
	if err == nil {
		err = checkContent(f)
	}
	if err != nil {
		return fmt.Errorf("manifest entry %q: %w", f.Path, err)
	}
	s.line = append(appendFile(s.line[:0], f), '\n')
	if len(s.line) > maxLine {
		return fmt.Errorf("manifest entry %q: its line has %d bytes, more than %d", f.Path, len(s.line), maxLine)
	}
	if _, err := s.w.Write(s.line); err != nil {
		return fmt.Errorf("spool the manifest: %w", err)
	}
	s.count.add(f)
	return nil
}

// assemble writes a whole manifest, as stored before encryption: header and
// packs, the spooled lines as they are, end. Each part is frames of its own.
func (s *fileSpool) assemble(w io.Writer, h Header, packs []PackRef) error {
	for _, t := range h.Tablespaces {
		if t.Path != "" && s.rules.collected[t.OID] == t.Path {
			delete(s.rules.collected, t.OID)
		}
	}
	for oid, path := range s.rules.collected {
		return fmt.Errorf("tablespace %d at %q is not in the manifest's header", oid, path)
	}
	if err := s.w.Close(); err != nil {
		return fmt.Errorf("spool the manifest: %w", err)
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("spool the manifest: %w", err)
	}
	err := writeLines(w, s.codec, func(line func(any) error) error {
		if err := line(headerLine{kindHeader, h}); err != nil {
			return err
		}
		for _, p := range packs {
			if err := line(packLine{kindPack, p.ID, p.Label, p.Number, p.Size, p.Plain, hex.EncodeToString(p.SHA256[:])}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, s.file); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	s.count.Packs = int64(len(packs))
	return writeLines(w, s.codec, func(line func(any) error) error { return line(endLine{kindEnd, s.count}) })
}

func (s *fileSpool) close() error { return s.file.Close() }

func writeLines(w io.Writer, c codec.Codec, fn func(line func(any) error) error) error {
	cw, err := codec.NewWriter(w, c)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(cw)
	enc.SetEscapeHTML(false)
	if err := fn(func(v any) error { return enc.Encode(v) }); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := cw.Close(); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}

// appendFile appends an entry's line, without the newline. By hand: a large
// cluster has tens of millions of chunks.
func appendFile(b []byte, f *FileEntry) []byte {
	b = append(b, `{"kind":"file",`...)
	b = appendName(b, "path", f.Path)
	b = append(b, `,"type":"`...)
	b = append(b, f.Type.String()...)
	b = append(b, `","mode":"0`...)
	b = strconv.AppendUint(b, uint64(f.Mode), 8)
	b = append(b, `","uid":`...)
	b = strconv.AppendInt(b, int64(f.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendInt(b, int64(f.GID), 10)
	if f.Owner != "" {
		b = append(b, ',')
		b = appendName(b, "owner", f.Owner)
	}
	if f.Group != "" {
		b = append(b, ',')
		b = appendName(b, "group", f.Group)
	}
	b = append(b, `,"mtime":"`...)
	b = f.MTime.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	switch f.Type {
	case Symlink:
		b = append(b, ',')
		b = appendName(b, "link", f.Link)
	case RegularFile:
		b = appendContent(b, f)
	}
	return append(b, '}')
}

func appendContent(b []byte, f *FileEntry) []byte {
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, f.Size, 10)
	if !f.CRCUnknown {
		b = append(b, `,"crc32c":"`...)
		b = appendHex32(b, f.CRC)
		b = append(b, '"')
	}
	if len(f.Chunks) > 0 {
		b = append(b, `,"chunks":[`...)
		for i := range f.Chunks {
			c := &f.Chunks[i]
			b = appendInts(b, i > 0, int64(c.Pack), c.Offset, int64(c.Stored), int64(c.Plain))
			b = append(b, `,"`...)
			b = hex.AppendEncode(b, c.XXH3[:])
			b = append(b, `","`...)
			b = appendHex32(b, c.CRC)
			b = append(b, `"]`...)
		}
		b = append(b, ']')
	}
	if f.Extents != nil {
		b = append(b, `,"extents":[`...)
		for i, x := range f.Extents {
			b = append(appendInts(b, i > 0, x.FileOffset, x.Length, int64(x.Chunk), x.ChunkOffset), ']')
		}
		b = append(b, ']')
	}
	if len(f.BadPages) > 0 {
		b = append(b, `,"bad_pages":[`...)
		for i, p := range f.BadPages {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(p), 10)
		}
		b = append(b, ']')
	}
	if f.Detect != "" {
		b = append(b, ',')
		b = appendName(b, "detect", f.Detect)
	}
	return b
}

// appendInts appends the beginning of an array of numbers.
func appendInts(b []byte, comma bool, numbers ...int64) []byte {
	if comma {
		b = append(b, ',')
	}
	for i, n := range numbers {
		b = append(b, "[,,,"[min(i, 1)])
		b = strconv.AppendInt(b, n, 10)
	}
	return b
}

func appendHex32(b []byte, v uint32) []byte {
	return hex.AppendEncode(b, []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// appendName appends a member whose value is a file name: as a string if it
// is UTF-8, else as "<name>_b64".
func appendName(b []byte, name, value string) []byte {
	b = append(append(b, '"'), name...)
	if !utf8.ValidString(value) {
		b = append(b, `_b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(value))
		return append(b, '"')
	}
	b = append(b, `":"`...)
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, `\u00`...)
			b = hex.AppendEncode(b, []byte{c})
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// sortedLabels lists the backups other than own whose packs are in a table.
func sortedLabels(packs []PackRef, own Label) []Label {
	var labels []Label
	for _, p := range packs {
		if p.Label != own {
			labels = append(labels, p.Label)
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}
