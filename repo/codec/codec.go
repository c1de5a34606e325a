// Package codec compresses and decompresses what a repository stores.
//
// Everything is a sequence of standard frames, zstd (RFC 8878) or lz4 (the
// LZ4 frame format), that the zstd and lz4 command lines read. Each frame is
// made in one call from a whole buffer, carries the size of its content, and
// so can be checked and decoded into a buffer of the right size, alone, in
// bounded memory. Long streams (the manifest, a WAL segment) are several
// frames one after the other, which both command lines take as one file.
//
// zstd is libzstd through cgo, about twice as fast as pure Go; a build
// without cgo uses pure Go. The frames of both are interchangeable.
package codec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Name names a compression method.
type Name string

// The methods. None writes zstd frames of uncompressed blocks, so that
// "zstd -d" reads every object, whatever the codec.
const (
	Zstd Name = "zstd"
	LZ4  Name = "lz4"
	None Name = "none"
)

// ErrCorrupt: a frame breaks its format, or does not yield what it announces.
var ErrCorrupt = errors.New("damaged frame")

// Codec is a method and how hard it tries.
type Codec struct {
	Name Name
	// Level: zstd 1 to 19, 0 means 3. lz4 1 to 9, 0 means 1; 1 is the fast
	// method, higher ones search longer. none: 0.
	Level int
}

// Default is zstd at level 3.
func Default() Codec { return Codec{Name: Zstd, Level: 3} }

// Parse reads "zstd", "zstd:5", "lz4", "lz4:9" or "none".
func Parse(s string) (Codec, error) {
	name, level, has := strings.Cut(s, ":")
	c := Codec{Name: Name(name)}
	if has {
		n, err := strconv.Atoi(level)
		if err != nil || n <= 0 {
			return Codec{}, fmt.Errorf("not a compression level: %q", level)
		}
		c.Level = n
	}
	return c, c.Validate()
}

// String is the form that Parse reads.
func (c Codec) String() string {
	if c.Level == 0 {
		return string(c.Name)
	}
	return string(c.Name) + ":" + strconv.Itoa(c.Level)
}

// Validate says what is wrong with a codec.
func (c Codec) Validate() error {
	limit := 0
	switch c.Name {
	case Zstd:
		limit = 19
	case LZ4:
		limit = 9
	case None:
	default:
		return fmt.Errorf("unknown compression %q (expected zstd, lz4 or none)", c.Name)
	}
	if c.Level < 0 || c.Level > limit {
		return fmt.Errorf("compression level %d out of range for %s (0 to %d)", c.Level, c.Name, limit)
	}
	return nil
}
