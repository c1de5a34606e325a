package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// WALName says which file of pg_wal an object holds.
type WALName struct {
	Kind pg.FileKind // FileSegment, FileHistory, FileBackupLabel or FilePartial
	Name string      // file name; of a partial one the segment's name, without ".partial"
	// ValidTo, of a partial segment only: the end of its last whole record.
	ValidTo pg.LSN
	// Conflict is "", or the SHA-256 (hex) of a file whose name was taken by
	// different content. See [Conflict].
	Conflict string
}

// SegmentFile names a complete segment.
func SegmentFile(n pg.SegmentName) WALName {
	return WALName{Kind: pg.FileSegment, Name: string(n)}
}

// HistoryFile names a timeline's history file.
func HistoryFile(t pg.Timeline) WALName {
	return WALName{Kind: pg.FileHistory, Name: pg.HistoryName(t)}
}

// PartialFile names a segment that is valid up to an LSN only.
func PartialFile(n pg.SegmentName, validTo pg.LSN) WALName {
	return WALName{Kind: pg.FilePartial, Name: string(n), ValidTo: validTo}
}

// ParseWALName names what PostgreSQL calls a segment, history or backup
// history file. How far a partial segment is valid is not in its file name: use
// PartialFile.
func ParseWALName(file string) (WALName, error) {
	kind := pg.KindOf(file)
	switch kind {
	case pg.FileSegment, pg.FileHistory, pg.FileBackupLabel:
		return WALName{Kind: kind, Name: file}, nil
	}
	return WALName{}, fmt.Errorf("not a segment, history or backup history file: %q", file)
}

// Timeline is the timeline in the name, 0 if the name has none.
func (n WALName) Timeline() pg.Timeline {
	if len(n.Name) < 8 {
		return 0
	}
	t, err := pg.ParseTimeline(n.Name[:8])
	if err != nil {
		return 0
	}
	return t
}

// DeletePartial deletes a partial segment that a longer one, or the whole one,
// has made garbage. One that is not there is no error.
func (e *Epoch) DeletePartial(ctx context.Context, name WALName) error {
	if name.Kind != pg.FilePartial {
		return fmt.Errorf("delete %s: not a partial segment", name)
	}
	key, err := e.walKey(name)
	if err == nil {
		err = e.r.store.Delete(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// String is the file name, for messages.
func (n WALName) String() string {
	if n.Conflict != "" {
		return fmt.Sprintf("%s (in conflict, xxh3 %s)", n.File(), n.Conflict)
	}
	if n.Kind == pg.FilePartial {
		return fmt.Sprintf("%s.partial (valid to %s)", n.Name, n.ValidTo)
	}
	return n.Name
}

// WALKind is pg.FileKind in JSON: "segment", "partial", "history", "label".
type WALKind pg.FileKind

var walKinds = map[WALKind]string{
	WALKind(pg.FileSegment):     "segment",
	WALKind(pg.FilePartial):     "partial",
	WALKind(pg.FileHistory):     "history",
	WALKind(pg.FileBackupLabel): "label",
}

// String is the form in JSON.
func (k WALKind) String() string { return walKinds[k] }

// MarshalJSON writes the kind's name.
func (k WALKind) MarshalJSON() ([]byte, error) {
	if walKinds[k] == "" {
		return nil, fmt.Errorf("WAL file of unknown kind %d", int(k))
	}
	return json.Marshal(walKinds[k])
}

// UnmarshalJSON is the reverse of MarshalJSON.
func (k *WALKind) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	for kind, name := range walKinds {
		if name == s {
			*k = kind
			return nil
		}
	}
	return fmt.Errorf("WAL file of unknown kind %q", s)
}

// RestorePoint is a named restore point (pg_create_restore_point).
type RestorePoint struct {
	Name string    `json:"name"`
	LSN  pg.LSN    `json:"lsn"` // end of its record
	Time time.Time `json:"time"`
}

// WALHead is what is known of an archived file without reading its body.
type WALHead struct {
	Format      int            `json:"format"` // filled in by PutWAL
	Kind        WALKind        `json:"kind"`
	Name        string         `json:"name"` // as in WALName
	SystemID    pg.SystemID    `json:"system_identifier"`
	Timeline    pg.Timeline    `json:"timeline"`
	SegmentSize pg.SegmentSize `json:"segment_size,omitempty"` // 0 for history and label files
	PGMajor     int            `json:"pg_major,omitempty"`
	XXH3        string         `json:"xxh3"`   // [wal.Digest] of the plain file
	Length      int64          `json:"length"` // of the plain file
	Start       pg.LSN         `json:"start,omitempty"`
	ValidTo     pg.LSN         `json:"valid_to,omitempty"` // end of the last whole record, or of the segment
	Complete    bool           `json:"complete,omitempty"`
	FirstCommit *time.Time     `json:"first_commit,omitempty"`
	LastCommit  *time.Time     `json:"last_commit,omitempty"`
	Commits     int            `json:"commits,omitempty"`
	MinXID      uint32         `json:"min_xid,omitempty"` // of transactions that ended here
	MaxXID      uint32         `json:"max_xid,omitempty"`

	RestorePoints []RestorePoint `json:"restore_points,omitempty"`

	// RecordsXXH3, of a complete segment that ends in a switch record only:
	// of the bytes before ValidTo. Segments where it agrees differ in
	// padding at most.
	RecordsXXH3 string `json:"records_xxh3,omitempty"`

	// Changes are the block changes of a segment, which are stored beside the
	// head; nil: none are known. Only for PutWAL; see Epoch.WALChanges.
	Changes *pg.BlockChanges `json:"-"`
}

// WALName is the name of the file that the head belongs to.
func (h WALHead) WALName() WALName {
	n := WALName{Kind: pg.FileKind(h.Kind), Name: h.Name}
	if n.Kind == pg.FilePartial {
		n.ValidTo = h.ValidTo
	}
	return n
}

// check refuses a head that cannot be, or that belongs to another object.
func (h *WALHead) check(e *Epoch, name WALName) error {
	own := h.WALName()
	if name.Conflict != "" {
		own = own.Conflicting(h.XXH3)
	}
	switch {
	case own != name:
		return fmt.Errorf("it is the head of %s", own)
	case h.SystemID != e.id:
		return fmt.Errorf("it is of cluster %s", h.SystemID)
	case !isWALDigest(h.XXH3):
		return errors.New("no XXH3 in its head: it is damaged, or a build from before the first release wrote it")
	case h.Length < 0 || h.Length > 1<<30: // the largest wal_segment_size
		return fmt.Errorf("a length of %d bytes in its head", h.Length)
	case h.Timeline != name.Timeline():
		return fmt.Errorf("timeline %d in its head", h.Timeline)
	}
	return nil
}
