package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func tree(t *testing.T, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		full := filepath.Join(root, p)
		if strings.HasSuffix(p, "/") {
			require.NoError(t, os.MkdirAll(full, 0o700))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o700))
		require.NoError(t, os.WriteFile(full, []byte(p), 0o600))
	}
}

// walked lists what the walk yields: "path", "path/" or "path -> target", and
// the warnings.
func walked(t *testing.T, root string) (entries, warnings []string) {
	t.Helper()
	core, logs := observer.New(zapcore.WarnLevel)
	w := walker{from: Local(root), versionDir: "PG_15_202209061", log: zap.New(core), emit: func(e entry) error {
		s := e.path
		switch e.kind {
		case kindDir:
			s += "/"
		case kindLink:
			s += " -> " + e.link
		case kindFile:
			if e.relation {
				s += fmt.Sprintf(" (pages %d)", e.segment)
			}
		}
		entries = append(entries, s)
		return nil
	}}
	require.NoError(t, w.walk(context.Background()))
	for _, l := range logs.All() {
		warnings = append(warnings, l.ContextMap()["path"].(string)+": "+l.Message)
	}
	return entries, warnings
}

func TestWalkOrderAndExclusions(t *testing.T) {
	root, space, elsewhere := t.TempDir(), t.TempDir(), t.TempDir()
	tree(t, root,
		"PG_VERSION", "postmaster.pid", "postmaster.opts", "backup_label", "backup_label.old", "tablespace_map",
		"backup_manifest", "postgresql.conf", "postgresql.auto.conf", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
		"base/1/1259", "base/1/1259_fsm", "base/1/1259_vm", "base/1/PG_VERSION", "base/1/pg_internal.init", "base/1/pg_filenode.map",
		"base/1/16384", "base/1/16384.1", "base/1/16384.10", "base/1/16384.2", "base/1/16384_fsm", "base/1/163840",
		"base/1/20000", "base/1/20000.1", "base/1/20000_fsm", "base/1/20000_init", "base/1/20000_vm",
		"base/1/t3_16400", "base/1/t3_16400_fsm", "base/1/t3_16400.1", "base/1/t3_x", "base/1/t3", "base/1/012", "base/1/16384.0",
		"base/pgsql_tmp/pgsql_tmp123.0", "base/1-x/9_init", "base/1-x/9",
		"global/pg_control", "global/1262", "global/pg_internal.init.77", "global/pg_filenode.map",
		"pg_notify/0000", "pg_replslot/s/state", "pg_dynshmem/mmap.1", "pg_serial/0000", "pg_snapshots/1", "pg_stat_tmp/x.stat", "pg_subtrans/0000",
		"pg_wal/000000010000000000000001", "pg_wal/archive_status/000000010000000000000001.ready",
		"pg_xact/0000", "inside/PG_15_202209061/5/7", "pg_logical/a", "pg_tblspc/",
		"odd\xff\n name",
	)
	tree(t, space, "PG_15_202209061/16385/16390", "PG_15_202209061/16385/t1_5", "PG_14_1/1/1", "other")
	tree(t, elsewhere, "conf", "logs/x.log", "db/7")
	for link, to := range map[string]string{
		"pg_tblspc/16386":  space,
		"pg_tblspc/16387":  filepath.Join(root, "inside"),
		"pg_tblspc/16388":  filepath.Join(elsewhere, "gone"),
		"pg_hba.conf":      filepath.Join(elsewhere, "conf"),
		"log":              filepath.Join(elsewhere, "logs"),
		"base/9":           filepath.Join(elsewhere, "db"),
		"base/1/loop":      "..",
		"dangling":         "nowhere",
		"pg_tblspc/README": "x",
	} {
		require.NoError(t, os.Symlink(to, filepath.Join(root, link)))
	}
	tree(t, root, "pg_tblspc/16389/PG_15_202209061/5/99", "pg_tblspc/16389/junk")
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600))

	entries, warnings := walked(t, root)
	require.Equal(t, []string{
		"./", "PG_VERSION", "backup_label.old",
		"base/", "base/1/", "base/1/012", "base/1/1259 (pages 0)", "base/1/1259_fsm (pages 0)", "base/1/1259_vm (pages 0)",
		"base/1/16384 (pages 0)", "base/1/16384.0", "base/1/16384.1 (pages 1)", "base/1/16384.10 (pages 10)", "base/1/16384.2 (pages 2)",
		"base/1/163840 (pages 0)", "base/1/16384_fsm (pages 0)", "base/1/20000_init (pages 0)", "base/1/PG_VERSION",
		"base/1/loop/", "base/1/pg_filenode.map", "base/1/t3", "base/1/t3_x",
		"base/1-x/", "base/1-x/9", "base/1-x/9_init",
		"base/9/", "base/9/7 (pages 0)",
		"global/", "global/1262 (pages 0)", "global/pg_filenode.map",
		"inside/", "odd\xff\n name", "pg_dynshmem/", "pg_hba.conf", "pg_logical/", "pg_logical/a", "pg_notify/",
		"pg_replslot/", "pg_serial/", "pg_snapshots/", "pg_stat_tmp/", "pg_subtrans/",
		"pg_tblspc/",
		"pg_tblspc/16386 -> " + space, "pg_tblspc/16386/PG_15_202209061/", "pg_tblspc/16386/PG_15_202209061/16385/",
		"pg_tblspc/16386/PG_15_202209061/16385/16390 (pages 0)",
		"pg_tblspc/16387 -> " + filepath.Join(root, "inside"), "pg_tblspc/16387/PG_15_202209061/", "pg_tblspc/16387/PG_15_202209061/5/",
		"pg_tblspc/16387/PG_15_202209061/5/7 (pages 0)",
		"pg_tblspc/16388 -> " + filepath.Join(elsewhere, "gone"),
		"pg_tblspc/16389/", "pg_tblspc/16389/PG_15_202209061/", "pg_tblspc/16389/PG_15_202209061/5/", "pg_tblspc/16389/PG_15_202209061/5/99 (pages 0)",
		"pg_wal/", "pg_wal/archive_status/", "pg_xact/", "pg_xact/0000", "postgresql.auto.conf", "postgresql.conf",
	}, entries)
	require.Equal(t, []string{
		"base/1/loop: link to a directory: its contents are stored in its place",
		"base/1/loop: link leads back to a directory above it: left out",
		"base/9: link to a directory: its contents are stored in its place",
		"dangling: link leads nowhere: left out",
		"log: link to a directory that is not PostgreSQL's own: left out",
		"pg_hba.conf: link to a file: its contents are stored in its place",
		"pg_tblspc/README: not a tablespace: left out",
		"pipe: neither file nor directory: left out",
	}, warnings)
}

// A pg_wal on another disk becomes a plain, empty directory, and so does any
// of the emptied directories.
func TestWalkLinkedWAL(t *testing.T) {
	root, wal := t.TempDir(), t.TempDir()
	tree(t, wal, "000000010000000000000001", "archive_status/", "summaries/")
	require.NoError(t, os.Symlink(wal, filepath.Join(root, "pg_wal")))
	require.NoError(t, os.Symlink(wal, filepath.Join(root, "pg_stat_tmp")))
	entries, warnings := walked(t, root)
	require.Equal(t, []string{"./", "pg_stat_tmp/", "pg_wal/", "pg_wal/archive_status/"}, entries)
	require.Empty(t, warnings)
}

func TestRelationFileNames(t *testing.T) {
	for name, want := range map[string]relFile{
		"1":                   {number: "1"},
		"16384":               {number: "16384"},
		"4294967295_fsm.12":   {number: "4294967295", fork: forkFSM, segment: 12},
		"16384_init":          {number: "16384", fork: forkInit},
		"16384_vm":            {number: "16384", fork: forkVM},
		"16384.131072":        {number: "16384", segment: 131072},
		"":                    {},
		"01":                  {},
		"16384.":              {},
		"16384.01":            {},
		"16384_":              {},
		"16384_main":          {},
		"16384_fsm_vm":        {},
		"16384.1x":            {},
		"x16384":              {},
		"12345678901":         {},
		"16384.1234567":       {},
		"pg_filenode.map":     {},
		"16384_fsm.99999999 ": {},
	} {
		got, ok := parseRelFile(name)
		require.Equal(t, want.number != "", ok, name)
		if ok {
			require.Equal(t, want, got, name)
		}
	}
	for name, want := range map[string]bool{
		"t1_2": true, "t12_34_fsm": true, "t1_2.3": true, "t1_2_vm.3": true,
		"t_2": false, "t1_": false, "t1": false, "t1_2_x": false, "t1_2.": false, "1_2": false, "t1_2 ": false, "": false,
	} {
		require.Equal(t, want, isTempRelFile(name), name)
	}
}

func TestNameList(t *testing.T) {
	dir := t.TempDir()
	const n = 3*nameBatch + 17
	for i := range n {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
	}
	l, err := readNames(dir)
	require.NoError(t, err)
	require.Equal(t, n, l.len())
	for i := 1; i < l.len(); i++ {
		require.Less(t, l.at(i-1), l.at(i))
	}
	require.True(t, hasName(l, "0"))
	require.True(t, hasName(l, fmt.Sprint(n-1)))
	require.False(t, hasName(l, fmt.Sprint(n)))
	require.False(t, hasName(l, "zzz"))
	require.False(t, hasName(l, ""))
}
