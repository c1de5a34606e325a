package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Standby makes a streaming standby of a running server, which may be a
// standby itself, and does not start it. Options for initdb are ignored; the
// settings are the primary's with those of o on top.
//
// All versions go the same way, because most installations here have no
// pg_basebackup: the low-level backup interface and a copy of the files. It
// shares no code with what it helps to test.
func (e *Env) Standby(ctx context.Context, primary *Server, o Options) (*Server, error) {
	if o.Name == "" {
		o.Name = primary.Name + "-standby"
	}
	s, err := e.newServer(o.Name, primary.Install)
	if err != nil {
		return nil, err
	}
	if err := s.copyFrom(ctx, primary); err != nil {
		return nil, fmt.Errorf("make standby %s of %s: %w", s.Name, primary.Name, err)
	}
	settings := map[string]string{"primary_slot_name": ""} // not the one of its primary, if that is a standby
	if !o.NotFromPrimary {
		settings["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable application_name=%s", primary.Port, s.Name)
	}
	if o.Slot != "" {
		if err := primary.Exec(ctx, `select pg_create_physical_replication_slot($1, true)`, o.Slot); err != nil {
			return nil, err
		}
		settings["primary_slot_name"] = o.Slot
	}
	for k, v := range o.Settings {
		settings[k] = v
	}
	if o.NoFsync {
		settings["fsync"] = "off"
	}
	return s, errors.Join(s.Configure(settings), s.AppendFile("standby.signal", ""), e.Own(s.DataDir))
}

func (s *Server) copyFrom(ctx context.Context, primary *Server) (err error) {
	conn, err := primary.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))

	start, stop := `select pg_backup_start('harness', true)`, `select labelfile from pg_backup_stop(false)`
	if primary.Install.Major < 15 {
		start, stop = `select pg_start_backup('harness', true, false)`, `select labelfile from pg_stop_backup(false, false)`
	}
	if _, err := conn.Exec(ctx, start); err != nil {
		return err
	}
	if err := s.copyFiles(ctx, conn, primary.DataDir); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.DataDir, "backup_label"), []byte(label), 0o600); err != nil {
		return err
	}
	return copyWAL(primary.DataDir, s.DataDir, label)
}

// emptied are the directories whose contents do not belong into a copy.
var emptied = map[string]bool{"pg_wal": true, "pg_replslot": true, "pg_stat_tmp": true, "pg_notify": true, "pg_dynshmem": true, "pg_serial": true, "pg_snapshots": true, "pg_subtrans": true}

// leftOut are the files that do not.
var leftOut = map[string]bool{"postmaster.pid": true, "postmaster.opts": true, "standby.signal": true, "recovery.signal": true, "backup_manifest": true}

func (s *Server) copyFiles(ctx context.Context, conn *pgx.Conn, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(from, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // dropped while we walk
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		to := filepath.Join(s.DataDir, rel)
		switch {
		case rel == ".", leftOut[rel]:
			return nil
		case emptied[rel]: // also where it is a link, such as pg_wal elsewhere
			if err := os.Mkdir(to, 0o700); err != nil || !d.IsDir() {
				return err
			}
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0 && filepath.Dir(rel) == "pg_tblspc":
			return s.copyTablespace(path, to)
		case d.IsDir():
			return os.Mkdir(to, 0o700)
		case d.Type().IsRegular():
			if err := copyFile(path, to, 0o600); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// copyTablespace copies what link points to into a new directory, and links
// to that.
func (s *Server) copyTablespace(link, to string) error {
	from, err := os.Readlink(link)
	if err != nil {
		return err
	}
	dir, err := s.env.Mkdir(s.Name + "-tablespace-" + filepath.Base(link))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return errors.Join(s.env.Own(dir), os.Symlink(dir, to))
}

// copyWAL copies the segments from the one that the backup label names, so
// that the standby reaches consistency whatever the primary has removed since.
func copyWAL(from, to, label string) error {
	_, rest, _ := strings.Cut(label, "(file ")
	first, _, ok := strings.Cut(rest, ")")
	if !ok {
		return fmt.Errorf("no start segment in the backup label %q", label)
	}
	if err := os.MkdirAll(filepath.Join(to, "pg_wal", "archive_status"), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(from, "pg_wal"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.Type().IsRegular() || !strings.HasSuffix(name, ".history") && (len(name) != 24 || name[8:] < first[8:]) {
			continue
		}
		if err := copyFile(filepath.Join(from, "pg_wal", name), filepath.Join(to, "pg_wal", name), 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
