package repo

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// lineScanner reads one line of JSON, strictly, without allocating: the
// manifest's file lines are too many for encoding/json. The first error stays
// in err and makes all further calls return zero values.
type lineScanner struct {
	b       []byte
	i       int
	err     error
	scratch []byte // unescaped strings
}

var errJSON = errors.New("not the JSON that was expected")

func (s *lineScanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("at byte %d: %s: %w", s.i, what, errJSON)
	}
}

func (s *lineScanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\r' || s.b[s.i] == '\n') {
		s.i++
	}
}

// take consumes c if it comes next.
func (s *lineScanner) take(c byte) bool {
	if s.err != nil {
		return false
	}
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *lineScanner) expect(c byte) {
	if !s.take(c) {
		s.fail("expected " + string(rune(c)))
	}
}

// more steps to the next element of an array or object: n elements were read,
// it ends with end.
func (s *lineScanner) more(n int, end byte) bool {
	if s.err != nil || s.take(end) {
		return false
	}
	if n > 0 {
		s.expect(',')
	}
	return s.err == nil
}

// end requires that nothing follows.
func (s *lineScanner) end() error {
	s.space()
	if s.i < len(s.b) {
		s.fail("more than one value")
	}
	return s.err
}

// integer reads a whole number from 0 to 2^63-1.
func (s *lineScanner) integer() int64 {
	if s.err != nil {
		return 0
	}
	s.space()
	start := s.i
	var v int64
	for ; s.i < len(s.b) && s.b[s.i]-'0' <= 9; s.i++ {
		d := int64(s.b[s.i] - '0')
		if v > (1<<63-1-d)/10 {
			s.fail("number too large")
			return 0
		}
		v = v*10 + d
	}
	if s.i == start || s.b[start] == '0' && s.i > start+1 {
		s.fail("expected a whole number")
		return 0
	}
	return v
}

// bounded is integer with an upper bound.
func (s *lineScanner) bounded(limit int64) int64 {
	v := s.integer()
	if v > limit {
		s.fail("number too large")
		return 0
	}
	return v
}

// text reads a string. The result is valid until the next call of text.
func (s *lineScanner) text() []byte {
	s.expect('"')
	if s.err != nil {
		return nil
	}
	rest := s.b[s.i:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		s.fail("unterminated string")
		return nil
	}
	if bytes.IndexByte(rest[:end], '\\') >= 0 {
		return s.escaped()
	}
	for _, c := range rest[:end] {
		if c < 0x20 {
			s.fail("control character in a string")
			return nil
		}
	}
	if !utf8.Valid(rest[:end]) {
		s.fail("string is not UTF-8")
		return nil
	}
	s.i += end + 1
	return rest[:end]
}

// escaped reads the rest of a string with escapes in it.
func (s *lineScanner) escaped() []byte {
	out := s.scratch[:0]
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			if s.scratch = out; !utf8.Valid(out) {
				s.fail("string is not UTF-8")
				return nil
			}
			return out
		case c < 0x20:
			s.fail("control character in a string")
			return nil
		case c != '\\':
			out = append(out, c)
		default:
			r, ok := s.escape()
			if !ok {
				s.fail("bad escape")
				return nil
			}
			out = utf8.AppendRune(out, r)
		}
	}
	s.fail("unterminated string")
	return nil
}

func (s *lineScanner) escape() (rune, bool) {
	if s.i >= len(s.b) {
		return 0, false
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r, ok := s.unit()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		if len(s.b)-s.i < 6 || s.b[s.i] != '\\' || s.b[s.i+1] != 'u' {
			return 0, false
		}
		s.i += 2
		low, ok := s.unit()
		r = utf16.DecodeRune(r, low)
		return r, ok && r != utf8.RuneError
	}
	return 0, false
}

// unit reads four hex digits.
func (s *lineScanner) unit() (rune, bool) {
	if len(s.b)-s.i < 4 {
		return 0, false
	}
	var b [2]byte
	if _, err := hex.Decode(b[:], s.b[s.i:s.i+4]); err != nil {
		return 0, false
	}
	s.i += 4
	return rune(b[0])<<8 | rune(b[1]), true
}

// hex reads a string of exactly 2*len(dst) lower-case hex digits.
func (s *lineScanner) hex(dst []byte) {
	t := s.text()
	if s.err != nil {
		return
	}
	if len(t) != 2*len(dst) {
		s.fail("a digest of the wrong length")
		return
	}
	for i := range dst {
		hi, lo := hexDigit(t[2*i]), hexDigit(t[2*i+1])
		if hi|lo > 15 {
			s.fail("not lower-case hex digits")
			return
		}
		dst[i] = hi<<4 | lo
	}
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// skip passes over one value of any kind.
func (s *lineScanner) skip(depth int) {
	if depth > 32 {
		s.fail("nested too deep")
	}
	if s.err != nil {
		return
	}
	s.space()
	if s.i >= len(s.b) {
		s.fail("expected a value")
		return
	}
	switch s.b[s.i] {
	case '"':
		s.text()
	case '{':
		s.i++
		for n := 0; s.more(n, '}'); n++ {
			s.text()
			s.expect(':')
			s.skip(depth + 1)
		}
	case '[':
		s.i++
		for n := 0; s.more(n, ']'); n++ {
			s.skip(depth + 1)
		}
	default: // a number, true, false, null
		start := s.i
		for s.i < len(s.b) && bytes.IndexByte([]byte("+-.0123456789abcdefghijklmnopqrstuvwxyzE"), s.b[s.i]) >= 0 {
			s.i++
		}
		if s.i == start {
			s.fail("expected a value")
		}
	}
}
