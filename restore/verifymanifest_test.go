package restore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

func TestBackupManifest(t *testing.T) {
	plan := &Plan{
		Backup: repo.Summary{StartLSN: 0x2000028, StopLSN: 0x3000100},
		Path:   []pg.TimelineSpan{{Timeline: 1, From: 0x2000028, To: 0x3000000}, {Timeline: 2, From: 0x3000000, To: 0x9000000}, {Timeline: 4, From: 0x9000000, To: 0xa000000}},
	}
	for version, first := range map[int]string{
		150004: `{ "PostgreSQL-Backup-Manifest-Version": 1,` + "\n",
		170000: `{ "PostgreSQL-Backup-Manifest-Version": 2,` + "\n" + `"System-Identifier": 7711086975447873154,` + "\n",
	} {
		var b bytes.Buffer
		m := newBackupManifest(&b, version, 7711086975447873154)
		m.add("base/5/1249", 8192, time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), 0x01020304)
		m.add("postgresql.auto.conf", 1, time.Time{}, 1) // not looked at
		m.add("pg_wal/archive_status/x", 1, time.Time{}, 1)
		m.add("odd \"\\\n\t", 0, time.Unix(0, 0), 0)
		m.add("not \xff UTF-8", 0, time.Unix(0, 0), 0)
		require.NoError(t, m.finish(plan))
		body := first + `"Files": [
{ "Path": "base/5/1249", "Size": 8192, "Last-Modified": "2026-01-02 02:04:05 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "04030201" },
{ "Path": "odd \"\\\u000a\u0009", "Size": 0, "Last-Modified": "1970-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" },
{ "Encoded-Path": "6e6f7420ff205554462d38", "Size": 0, "Last-Modified": "1970-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "0/3000000", "End-LSN": "0/3000100" },
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/3000000" }
],
`
		sum := sha256.Sum256([]byte(body))
		require.Equal(t, body+fmt.Sprintf("\"Manifest-Checksum\": \"%s\"}\n", hex.EncodeToString(sum[:])), b.String())
		require.True(t, json.Valid(b.Bytes()))
	}
}
