package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// Options describe a server. The zero value is PostgreSQL 15 without page
// checksums and with 16 MiB segments.
type Options struct {
	Name  string // for logs and directories; default "pg<major>"
	Major int    // default 15; ignored for a standby

	// For initdb.
	Checksums       bool
	SegmentSize     pg.SegmentSize // default 16 MiB
	ExtraInitdbArgs []string

	// Settings go to postgresql.conf, quoted as needed. Defaults that suit
	// tests are there already: see baseSettings.
	Settings map[string]string
	// NoFsync sets fsync=off. Faster, and wrong for tests that kill machines
	// rather than processes.
	NoFsync bool
	// Slot, for a standby: the name of a physical replication slot that is
	// made on its primary, so that WAL waits for the standby.
	Slot string
	// NotFromPrimary, for a standby: leave out primary_conninfo, so that it
	// gets WAL only through restore_command.
	NotFromPrimary bool
}

func (o *Options) setDefaults() {
	if o.Major == 0 {
		o.Major = DebianMajor
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = pg.DefaultSegmentSize
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("pg%d", o.Major)
	}
}

// baseSettings make a server small, quiet about nothing that matters, and
// ready for a standby.
func baseSettings(o Options) map[string]string {
	s := map[string]string{
		"shared_buffers":              "16MB",
		"max_connections":             "40",
		"max_wal_senders":             "10",
		"log_line_prefix":             "%m [%p] ",
		"log_timezone":                "UTC",
		"logging_collector":           "off",
		"log_min_messages":            "info",
		"wal_level":                   "replica",
		"hot_standby":                 "on",
		"wal_keep_size":               "64MB", // for standbys without a slot
		"archive_timeout":             "0",
		"wal_retrieve_retry_interval": "200ms",
		"min_wal_size":                fmt.Sprintf("%dMB", 2*int(o.SegmentSize>>20)),
		"max_wal_size":                fmt.Sprintf("%dMB", max(256, 4*int(o.SegmentSize>>20))),
	}
	if o.NoFsync {
		s["fsync"] = "off"
	}
	return s
}

// InitDB makes a new cluster, with a system identifier of its own, superuser
// "postgres", locale C and trust authentication, and does not start it.
func (e *Env) InitDB(ctx context.Context, o Options) (*Server, error) {
	o.setDefaults()
	install, err := e.Install(o.Major)
	if err != nil {
		return nil, err
	}
	s, err := e.newServer(o.Name, install)
	if err != nil {
		return nil, err
	}
	if err := e.initdb(ctx, install, o, s.DataDir); err != nil {
		return nil, fmt.Errorf("initdb for server %s: %w", s.Name, err)
	}
	settings := baseSettings(o)
	for k, v := range o.Settings {
		settings[k] = v
	}
	return s, s.Configure(settings)
}

// Install finds an installed server whose programs the servers' user can run.
func (e *Env) Install(major int) (Install, error) {
	i, err := Locate(major)
	if err != nil {
		return i, err
	}
	return e.reachableInstall(i)
}

func initdbArgs(o Options) []string {
	args := []string{
		"--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
		fmt.Sprintf("--wal-segsize=%d", o.SegmentSize>>20),
	}
	switch {
	case o.Checksums:
		args = append(args, "--data-checksums")
	case o.Major >= 18: // where it is the default
		args = append(args, "--no-data-checksums")
	}
	return append(args, o.ExtraInitdbArgs...)
}

// initdb fills dataDir from the template for these options, which it makes if
// need be. Processes that make the same template at the same time do not mind
// each other: the first rename wins.
func (e *Env) initdb(ctx context.Context, install Install, o Options, dataDir string) error {
	args := initdbArgs(o)
	run := func(dir string) error {
		_, err := e.Run(ctx, install.Path("initdb"), append([]string{"--pgdata=" + dir}, args...)...)
		return err
	}
	if slices.ContainsFunc(o.ExtraInitdbArgs, func(a string) bool { return strings.Contains(a, "/") }) {
		return run(dataDir) // it names a place, such as --waldir: nothing to copy
	}
	cache, err := CacheDir()
	if err != nil {
		return err
	}
	st, err := os.Stat(filepath.Join(install.BinDir, "postgres"))
	if err != nil {
		return err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%q %d %d %d %d", args, install.Major, st.Size(), st.ModTime().UnixNano(), e.user.uid))
	template := filepath.Join(cache, "templates", fmt.Sprintf("%d-%x", install.Major, key[:6]))
	if _, err := os.Stat(template); err != nil {
		if err := e.makeTemplate(template, run); err != nil {
			return err
		}
	}
	if err := os.Remove(dataDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := copyTree(template, dataDir); err != nil {
		return err
	}
	if err := newIdentity(dataDir); err != nil {
		return err
	}
	return e.user.own(dataDir)
}

func (e *Env) makeTemplate(template string, run func(dir string) error) error {
	dir, err := e.Mkdir("initdb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := run(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(template), 0o755); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.%d.%d", template, os.Getpid(), rand.Uint32())
	defer os.RemoveAll(tmp)
	if err := copyTree(dir, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, template); err != nil {
		if _, there := os.Stat(template); there != nil {
			return err
		}
	}
	return nil
}

// newIdentity gives a copied template its own system identifier: in pg_control
// and in the long header of its only WAL segment, the two places that hold it.
func newIdentity(dataDir string) error {
	id := uint64(time.Now().Unix())<<32 | uint64(rand.Uint32())
	control := filepath.Join(dataDir, "global", "pg_control")
	b, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	// The checksum is the last member of ControlFileData, whose size differs
	// between versions: it is where the CRC of all before it stands.
	table := crc32.MakeTable(crc32.Castagnoli)
	at := 0
	for n := 200; n+4 <= 512 && n+4 <= len(b); n += 4 {
		if binary.LittleEndian.Uint32(b[n:]) == crc32.Checksum(b[:n], table) {
			at = n
		}
	}
	if at == 0 {
		return fmt.Errorf("no checksum found in %s", control)
	}
	binary.LittleEndian.PutUint64(b, id)
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[:at], table))
	if err := os.WriteFile(control, b, 0o600); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", strings.Repeat("[0-9A-F]", 24)))
	if err != nil || len(segments) == 0 {
		return errors.Join(fmt.Errorf("no WAL segment in the new cluster %s", dataDir), err)
	}
	for _, segment := range segments {
		if err := setSystemID(segment, id); err != nil {
			return err
		}
	}
	return nil
}

// setSystemID changes the long header of a WAL segment (xlog_internal.h,
// XLogLongPageHeaderData.xlp_sysid). Page headers carry no checksum.
func setSystemID(segment string, id uint64) error {
	f, err := os.OpenFile(segment, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, id), 24)
	return errors.Join(err, f.Close())
}
