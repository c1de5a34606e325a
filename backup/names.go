package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// nameList holds the names of one directory in byte order. A million names
// cost about their own length and eight bytes each: one block of bytes, and
// one word per name with its place in it.
type nameList struct {
	blob  []byte
	names []uint64 // offset in blob << 16 | length
}

const nameBatch = 4096 // names asked for at once; bounds what is garbage

// readNames lists a directory. Errors are those of open and getdents.
func readNames(dir string) (nameList, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nameList{}, err
	}
	defer f.Close()
	var l nameList
	for {
		batch, err := f.Readdirnames(nameBatch)
		for _, n := range batch {
			l.names = append(l.names, uint64(len(l.blob))<<16|uint64(len(n)))
			l.blob = append(l.blob, n...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nameList{}, fmt.Errorf("list %s: %w", dir, err)
		}
	}
	slices.SortFunc(l.names, func(a, b uint64) int { return bytes.Compare(l.bytes(a), l.bytes(b)) })
	return l, nil
}

func (l nameList) bytes(n uint64) []byte { return l.blob[n>>16 : n>>16+n&0xffff] }

func (l nameList) len() int { return len(l.names) }

func (l nameList) at(i int) string { return string(l.bytes(l.names[i])) }
