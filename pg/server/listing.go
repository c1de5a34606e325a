package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Listing is what is in a directory, by name in byte order. A name costs its own
// length and some forty bytes: directories can hold millions.
type Listing struct {
	blob []byte // the names
	all  []listed
}

type listed struct {
	name     int64 // where it begins in blob
	size     int64
	modified int64 // seconds since 1970
	length   uint16
	kind     listedKind
}

type listedKind uint8

const (
	listedFile listedKind = iota
	listedDir
	listedGone    // nothing is there: a link that leads nowhere, or it vanished
	listedUnnamed // its name cannot be sent
)

// ErrName: a name that is no text in the database's encoding, so that it cannot
// be sent to the server. PostgreSQL's own files have no such names.
var ErrName = errors.New("its name is not valid in the encoding of the database, so it cannot be read over SQL")

// add takes a row of name, size, modification and isdir, in binary format.
func (l *Listing) add(v [][]byte, sendable bool) error {
	if len(v) != 4 || len(v[0]) > 1<<16-1 {
		return fmt.Errorf("%d columns with a name of %d bytes", len(v), len(v[0]))
	}
	x := listed{name: int64(len(l.blob)), length: uint16(len(v[0])), kind: listedFile}
	switch {
	case !sendable:
		x.kind = listedUnnamed
	case v[1] == nil || v[2] == nil || v[3] == nil:
		x.kind = listedGone
	case len(v[1]) != 8 || len(v[2]) != 8 || len(v[3]) != 1:
		return errors.New("the server's answer has another form than was expected")
	default:
		x.size, x.modified = int64(binary.BigEndian.Uint64(v[1])), int64(binary.BigEndian.Uint64(v[2]))
		if v[3][0] != 0 {
			x.kind = listedDir
		}
	}
	l.blob = append(l.blob, v[0]...)
	l.all = append(l.all, x)
	return nil
}

// Len is how many there are.
func (l *Listing) Len() int { return len(l.all) }

// Name is the i-th name.
func (l *Listing) Name(i int) string {
	x := l.all[i]
	return string(l.blob[x.name : x.name+int64(x.length)])
}

// Info is what is there: fs.ErrNotExist if nothing is, ErrName if nobody can ask.
func (l *Listing) Info(i int) (FileInfo, error) {
	switch x := l.all[i]; x.kind {
	case listedGone:
		return FileInfo{}, notExist("look at", l.Name(i))
	case listedUnnamed:
		return FileInfo{}, ErrName
	default:
		return FileInfo{Size: x.size, Modified: time.Unix(x.modified, 0), Dir: x.kind == listedDir}, nil
	}
}
