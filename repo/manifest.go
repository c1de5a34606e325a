package repo

import (
	"fmt"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// FileType is what a path of a backup is.
type FileType uint8

// The types of files that a backup holds.
const (
	RegularFile FileType = iota
	Directory
	Symlink
)

// Header begins a manifest.
type Header struct {
	Format        int            `json:"format"` // filled in by Commit
	Label         Label          `json:"label"`
	Type          BackupType     `json:"type"`
	Parent        Label          `json:"parent,omitempty"`
	Cluster       string         `json:"cluster"`
	SystemID      pg.SystemID    `json:"system_identifier"`
	PGVersion     int            `json:"pg_version"`
	SegmentSize   pg.SegmentSize `json:"segment_size"`
	Timeline      pg.Timeline    `json:"timeline"`
	StartLSN      pg.LSN         `json:"start_lsn"`
	StopLSN       pg.LSN         `json:"stop_lsn"`
	Start         time.Time      `json:"start"`
	Stop          time.Time      `json:"stop"`
	FromStandby   bool           `json:"from_standby,omitempty"`
	DataChecksums bool           `json:"data_checksums"`
	BlockSize     int            `json:"block_size"`       // 8192
	PGData        string         `json:"pgdata,omitempty"` // where it was, for people
	Tablespaces   []Tablespace   `json:"tablespaces,omitempty"`
	Databases     []Database     `json:"databases,omitempty"`
	Place         *Place         `json:"place,omitempty"`
}

// Database is one row of pg_database, as it was when the backup had begun.
type Database struct {
	OID  uint32 `json:"oid"`
	Name string `json:"name"`
	// XMin is the transaction that wrote the row: a database of the same OID
	// with another XMin was changed as a whole, or is another one.
	XMin uint32 `json:"xmin"`
}

// Place tells a data directory from every other one, so that the times of
// files in it can be compared with those that an earlier backup saw. Two
// places that are not equal in all members are not the same.
type Place struct {
	Host   string `json:"host"`
	Device uint64 `json:"device"` // of the data directory
	Inode  uint64 `json:"inode"`
	Born   uint64 `json:"born"` // inode of PG_VERSION in it
}

// Tablespace is one link of pg_tblspc.
type Tablespace struct {
	OID  uint32 `json:"oid"`
	Name string `json:"name,omitempty"` // in the server, if known
	Path string `json:"path"`           // where it was: absolute; "" for one inside PGDATA (allow_in_place_tablespaces)
}

// FileEntry describes one path of a backup.
//
// Order: entries come in walk order: a directory before what is in it, the
// names of each directory in byte order (see [ComparePaths]). Then, after all
// others, come the files that are written last, in this order: backup_label,
// tablespace_map (if there is one), global/pg_control. A path "." (type
// Directory), if present, comes first and describes PGDATA itself. A
// tablespace is an entry pg_tblspc/<oid> (Symlink with its absolute target, or
// Directory), followed by its contents below that path.
type FileEntry struct {
	Path  string // relative to PGDATA, '/' between names, clean; any bytes but NUL
	Type  FileType
	Mode  uint32 // permission bits and setuid, setgid, sticky: 0 to 07777
	UID   int
	GID   int
	Owner string // name of UID on the node, or ""
	Group string
	MTime time.Time
	Link  string // target of a Symlink

	// Of regular files:

	Size int64
	CRC  uint32 // CRC-32C of the whole file
	// CRCUnknown: the file is made of pages of several backups, so CRC is 0
	// and whoever restores the file finds it out.
	CRCUnknown bool
	Chunks     []Chunk  // where its bytes are
	Extents    []Extent // how chunks make up the file; nil: one after the other
	BadPages   []uint32 // numbers of pages whose checksum is wrong, in order
	Detect     string   // how its changes were found; see FORMAT.md
}

// Chunk is up to MaxChunk bytes of data in a pack.
type Chunk struct {
	Pack   int      // id in the manifest's pack table
	Offset int64    // of its frame in the plain pack
	Stored int      // length of its frame
	Plain  int      // length of its data, 1 to MaxChunk
	XXH3   [16]byte // XXH3-128 of its data, big-endian (canonical)
	CRC    uint32   // CRC-32C of its frame
}

// Extent is a part of a file that comes from a part of a chunk.
type Extent struct {
	FileOffset  int64
	Length      int64
	Chunk       int // index into FileEntry.Chunks
	ChunkOffset int64
}

// PackRef is one line of a manifest's pack table.
type PackRef struct {
	ID     int      // in this manifest
	Label  Label    // the backup that stored it
	Number uint32   // in that backup
	Size   int64    // stored bytes
	Plain  int64    // bytes of chunk frames; equals Size in a plain repository
	SHA256 [32]byte // of the stored bytes
}

// MaxChunk is the most data in one chunk, 1 MiB.
const MaxChunk = 1 << 20

// maxStoredChunk is the longest frame of a chunk: codec.Bound(MaxChunk).
const maxStoredChunk = MaxChunk + MaxChunk>>7 + 1024

func (t FileType) String() string {
	switch t {
	case RegularFile:
		return "file"
	case Directory:
		return "dir"
	case Symlink:
		return "symlink"
	}
	return fmt.Sprintf("FileType(%d)", uint8(t))
}

// A manifest is JSON, one object per line, in this order, each with its kind
// as the first member: one header, the pack table, the files, one end.
const (
	kindHeader = "header"
	kindPack   = "pack"
	kindFile   = "file"
	kindEnd    = "end"
)

type headerLine struct {
	Kind string `json:"kind"`
	Header
}

type packLine struct {
	Kind   string `json:"kind"`
	ID     int    `json:"id"`
	Label  Label  `json:"label"`
	Number uint32 `json:"number"`
	Size   int64  `json:"size"`
	Plain  int64  `json:"plain"`
	SHA256 string `json:"sha256"`
}

type endLine struct {
	Kind string `json:"kind"`
	counts
}

// counts are what a manifest's end line says came before it.
type counts struct {
	Packs       int64 `json:"packs"`
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	Bytes       int64 `json:"bytes"` // of all files
	BadPages    int64 `json:"bad_pages"`
}

func (c *counts) add(f *FileEntry) {
	switch f.Type {
	case RegularFile:
		c.Files++
	case Directory:
		c.Directories++
	case Symlink:
		c.Symlinks++
	}
	c.Bytes += f.Size
	c.BadPages += int64(len(f.BadPages))
}

func (c *counts) sum(o counts) {
	c.Packs += o.Packs
	c.Files += o.Files
	c.Directories += o.Directories
	c.Symlinks += o.Symlinks
	c.Bytes += o.Bytes
	c.BadPages += o.BadPages
}
