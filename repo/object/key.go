package object

import (
	"errors"
	"fmt"
)

const (
	// MaxKeyLength is the longest key in bytes that every Store takes (S3, GCS
	// and Azure allow 1024). A prefix wrapper takes its prefix from it.
	MaxKeyLength = 700
	// MaxPartLength is the longest part of a key between slashes, in bytes:
	// what the usual file systems allow for a name.
	MaxPartLength = 255
)

// CheckKey returns ErrBadKey, wrapped with the reason, unless key is made of
// one or more non-empty parts joined by '/', of printable ASCII without
// '\\', no part being "." or ".." or ending in '.' (Azure drops it) or longer
// than MaxPartLength, and is at most MaxKeyLength bytes long. It is the one
// guard against keys that leave a directory or mean different things to
// different stores; every driver calls it first.
func CheckKey(key string) error {
	bad := func(why string) error { return fmt.Errorf("key %q: %s: %w", key, why, ErrBadKey) }
	if key == "" {
		return bad("empty")
	}
	if len(key) > MaxKeyLength {
		return bad(fmt.Sprintf("longer than %d bytes", MaxKeyLength))
	}
	start := 0
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '/' {
			if c := key[i]; c < 0x20 || c > 0x7e || c == '\\' {
				return bad("not printable ASCII, or a backslash")
			}
			continue
		}
		part := key[start:i]
		start = i + 1
		switch {
		case part == "":
			return bad("empty part")
		case part[len(part)-1] == '.':
			return bad("a part ends in '.'")
		case len(part) > MaxPartLength:
			return bad(fmt.Sprintf("a part is longer than %d bytes", MaxPartLength))
		}
	}
	return nil
}

// CheckPut checks the arguments of a Put, for drivers: the key, and that the
// options do not contradict each other.
func CheckPut(key string, opts PutOptions) error {
	switch {
	case opts.IfAbsent && opts.IfMatch != "":
		return Permanent(fmt.Errorf("put %q: %w", key, errConditions))
	case opts.Size < 0:
		return Permanent(fmt.Errorf("put %q: negative size %d: %w", key, opts.Size, ErrSize))
	}
	return CheckKey(key)
}

var errConditions = errors.New("IfAbsent and IfMatch exclude each other")
