package repo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/walkeep/walkeep/pg"
)

// The keys of a repository, below the cluster's prefix. FORMAT.md has the
// table; a test compares the two.
const (
	markerKey   = "walkeep"
	epochPrefix = "epoch/"
	leasePrefix = "lease/"
)

func epochKey(id pg.SystemID) string { return epochPrefix + id.String() }

func leaseKey(name string) string { return leasePrefix + name }

func (e *Epoch) prefix(kind string) string { return e.id.String() + "/" + kind + "/" }

// walPrefix is where the complete segments of a timeline are; 0: of all.
func (e *Epoch) walPrefix(t pg.Timeline) string {
	if t == 0 {
		return e.prefix("wal")
	}
	return e.prefix("wal") + t.Hex() + "/"
}

func (e *Epoch) segmentKey(n pg.SegmentName) string {
	return e.walPrefix(n.Timeline()) + string(n[8:16]) + "/" + string(n)
}

// walKey is the key of a file of pg_wal. Names come from outside, so they are
// checked here, where they become keys.
func (e *Epoch) walKey(n WALName) (string, error) {
	if kind := pg.KindOf(n.Name); kind == n.Kind || kind == pg.FileSegment && n.Kind == pg.FilePartial {
		if n.Conflict != "" {
			if kind == pg.FilePartial || kind == pg.FileUnknown || !isWALDigest(n.Conflict) {
				return "", fmt.Errorf("not a file that the archive keeps: %q in conflict %q", n.Name, n.Conflict)
			}
			return e.prefix("conflict") + n.File() + "." + n.Conflict, nil
		}
		switch n.Kind {
		case pg.FileSegment:
			return e.segmentKey(pg.SegmentName(n.Name)), nil
		case pg.FileHistory:
			return e.prefix("history") + n.Name, nil
		case pg.FileBackupLabel:
			return e.prefix("label") + n.Name, nil
		case pg.FilePartial:
			if kind == pg.FileSegment {
				return fmt.Sprintf("%s%s.%016X", e.prefix("partial"), n.Name, uint64(n.ValidTo)), nil
			}
		}
	}
	return "", fmt.Errorf("not a file that the archive keeps: %q", n.Name)
}

// parsePartialKey reads the last part of a partial segment's key.
func parsePartialKey(base string) (Partial, bool) {
	name, hex, ok := strings.Cut(base, ".")
	segment, err := pg.ParseSegmentName(name)
	if !ok || err != nil || len(hex) != 16 {
		return Partial{}, false
	}
	lsn, err := strconv.ParseUint(hex, 16, 64)
	if err != nil || fmt.Sprintf("%016X", lsn) != hex {
		return Partial{}, false
	}
	return Partial{Segment: segment, ValidTo: pg.LSN(lsn)}, true
}

func (e *Epoch) backupPrefix(l Label) string { return e.prefix("backup") + string(l) + "/" }

func (e *Epoch) packKey(l Label, number uint32) string {
	return fmt.Sprintf("%spack/%08x", e.backupPrefix(l), number)
}

func (e *Epoch) manifestKey(l Label) string { return e.backupPrefix(l) + "manifest" }

func (e *Epoch) summaryKey(l Label) string { return e.prefix("summary") + string(l) }

// journalKey is the key of a part of a journal. With the digest in it nothing
// else is needed to verify the part.
func (e *Epoch) journalKey(l Label, number uint32, digest string) string {
	return fmt.Sprintf("%s%s/%08x.%s", e.prefix("resume"), l, number, digest)
}
