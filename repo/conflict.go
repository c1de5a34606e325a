package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo/object"
)

// Conflict is an archived file whose name was taken by different content: by
// another writer of the same timeline. It is kept, and never served under its
// name. Its head is [Epoch.WALHead] of Name.
type Conflict struct {
	Name WALName // with Conflict set; ValidTo is not known
	Size int64   // stored bytes
}

// History reports whether two nodes chose the same number for different
// timelines.
func (c Conflict) History() bool { return c.Name.Kind == pg.FileHistory }

// Conflicting is the name under which a file with that [wal.Digest] (hex) is kept
// if its own name is taken.
func (n WALName) Conflicting(digest string) WALName {
	return WALName{Kind: n.Kind, Name: n.Name, Conflict: digest}
}

// File is the name that PostgreSQL has for it.
func (n WALName) File() string {
	if n.Kind == pg.FilePartial {
		return n.Name + ".partial"
	}
	return n.Name
}

// PutConflict stores a file of pg_wal, as PutWAL does, under the key of
// head.WALName().Conflicting(head.XXH3).
func (e *Epoch) PutConflict(ctx context.Context, head WALHead, body io.Reader) error {
	return e.putFile(ctx, head.WALName().Conflicting(head.XXH3), head, body)
}

// Conflicts lists the conflicting files of timeline t (0: of all), by name.
func (e *Epoch) Conflicts(ctx context.Context, t pg.Timeline) (found []Conflict, err error) {
	all := e.prefix("conflict")
	prefix := all
	if t != 0 {
		prefix += t.Hex()
	}
	err = e.list(ctx, prefix, "", func(i object.Info) error {
		if n, ok := parseConflictKey(i.Key[len(all):]); ok {
			found = append(found, Conflict{Name: n, Size: i.Size})
		}
		return nil
	})
	return found, err
}

// parseConflictKey reads the last part of a conflicting file's key.
func parseConflictKey(base string) (WALName, bool) {
	dot := strings.LastIndexByte(base, '.')
	if dot < 0 || !isWALDigest(base[dot+1:]) {
		return WALName{}, false
	}
	name, kind := base[:dot], pg.KindOf(base[:dot])
	if kind == pg.FileUnknown {
		return WALName{}, false
	}
	return WALName{Kind: kind, Name: strings.TrimSuffix(name, ".partial")}.Conflicting(base[dot+1:]), true
}

// isDigest reports whether s is a SHA-256 as we write it.
func isDigest(s string) bool { return isLowerHex(s, sha256.Size) }

// isWALDigest reports whether s is a [wal.Digest] as we write it.
func isWALDigest(s string) bool { return isLowerHex(s, len(wal.Digest{})) }

func isLowerHex(s string, size int) bool {
	sum, err := hex.DecodeString(s)
	return err == nil && len(sum) == size && hex.EncodeToString(sum) == s
}
