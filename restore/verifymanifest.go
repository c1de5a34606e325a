package restore

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/walkeep/walkeep/pg"
)

// backupManifest writes PostgreSQL's own backup_manifest, by which
// pg_verifybackup checks the directory before the server is started: JSON in
// the line format of backup_manifest.c, which pg_verifybackup relies on for
// the last line. It holds nothing in memory.
type backupManifest struct {
	w     *bufio.Writer
	sum   hash.Hash
	first bool
	err   error
}

// Names in PGDATA that pg_verifybackup does not look at (pg_verifybackup.c,
// ignore_list).
func ignoredByVerify(path string) bool {
	switch path {
	case "backup_manifest", "postgresql.auto.conf", "recovery.signal", "standby.signal":
		return true
	}
	return strings.HasPrefix(path, "pg_wal/")
}

// newBackupManifest begins a manifest. System identifiers came with version 2,
// in PostgreSQL 17; older programs refuse it.
func newBackupManifest(w io.Writer, pgVersion int, id pg.SystemID) *backupManifest {
	m := &backupManifest{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New(), first: true}
	if pgVersion >= 170000 {
		m.printf("{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": %s,\n\"Files\": [", id)
	} else {
		m.printf("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [")
	}
	return m
}

func (m *backupManifest) printf(format string, args ...any) {
	m.write(fmt.Appendf(nil, format, args...))
}

func (m *backupManifest) write(b []byte) {
	if m.err == nil {
		m.sum.Write(b)
		_, m.err = m.w.Write(b)
	}
}

// add enters a regular file.
func (m *backupManifest) add(path string, size int64, mtime time.Time, crc uint32) {
	if ignoredByVerify(path) {
		return
	}
	sep := ",\n"
	if m.first {
		sep, m.first = "\n", false
	}
	b := make([]byte, 0, 256)
	b = append(b, sep...)
	if utf8.ValidString(path) {
		b = append(b, `{ "Path": `...)
		b = appendJSONString(b, path)
	} else {
		b = append(b, `{ "Encoded-Path": "`...)
		b = hex.AppendEncode(b, []byte(path))
		b = append(b, '"')
	}
	b = fmt.Appendf(b, `, "Size": %d, "Last-Modified": "`, size)
	b = mtime.UTC().AppendFormat(b, "2006-01-02 15:04:05 GMT")
	b = append(b, `", "Checksum-Algorithm": "CRC32C", "Checksum": "`...)
	// The four bytes as the server has them in memory, and it runs on
	// little-endian machines only where we do.
	b = hex.AppendEncode(b, []byte{byte(crc), byte(crc >> 8), byte(crc >> 16), byte(crc >> 24)})
	m.write(append(b, `" }`...))
}

// appendJSONString quotes the way the server does (json.c, escape_json).
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// finish writes the rest: the WAL that the backup needs, and the digest.
func (m *backupManifest) finish(p *Plan) error {
	m.printf("\n],\n\"WAL-Ranges\": [\n")
	sep := ""
	for _, s := range slices.Backward(p.Path) { // newest first, as the server has them
		if to := min(s.To, p.Backup.StopLSN); s.From < to {
			m.printf("%s{ \"Timeline\": %d, \"Start-LSN\": \"%s\", \"End-LSN\": \"%s\" }", sep, s.Timeline, s.From, to)
			sep = ",\n"
		}
	}
	m.printf("\n],\n")
	if m.err != nil {
		return m.err
	}
	if _, err := fmt.Fprintf(m.w, "\"Manifest-Checksum\": \"%x\"}\n", m.sum.Sum(nil)); err != nil {
		return err
	}
	return m.w.Flush()
}
