package restore

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/internal/cores"
	"github.com/walkeep/walkeep/repo"
)

// Options of Run.
type Options struct {
	// PGData is the directory to restore into. It must not exist or be empty,
	// or hold the remains of an earlier restore.
	PGData string
	// Tablespaces says where tablespaces go: keys are OIDs ("16400"), names or
	// recorded locations, values absolute directories that do not exist or
	// are empty. TablespacesBelow, if not empty, is where all others go, each
	// into a directory named by its OID. What neither covers goes to where it
	// was.
	Tablespaces      map[string]string
	TablespacesBelow string
	// Links says which directories in PGData go elsewhere, with a link in their
	// place: keys are names such as pg_wal, values absolute directories that do
	// not exist or are empty.
	Links map[string]string
	// Delta restores in place: PGData, tablespaces and Links may hold a data
	// directory of this cluster, of which what the backup has too stays, and
	// all else goes.
	Delta bool
	// Keep are names in PGData that stay as they are if they are there; with
	// Delta.
	Keep []string
	// Include and Exclude choose databases, by name or OID: only these, all but
	// these. The files of the others are zeroes.
	Include, Exclude []string
	// AllowDamaged goes on where something stored is damaged and no other
	// repository has it: zeroes are written in its place, see Result.Damaged.
	AllowDamaged bool
	// DiscardWAL lets a restore in place remove WAL that is in no repository.
	// Without it that is an *UnarchivedError. Archives are the repositories to
	// ask; none: the plan's only. They are also asked for what the plan's cannot
	// give any more.
	DiscardWAL bool
	Archives   []*repo.Repository
	// RestoreCommand is the server's restore_command, with %f and %p; see
	// RestoreCommand.
	RestoreCommand string
	// RecoveryEndCommand is the server's recovery_end_command, see the function
	// of that name; "": what postgresql.conf says. Not for a standby, whose
	// settings are needed for as long as it is one.
	RecoveryEndCommand string
	// PrimaryConnInfo is the server that a standby streams from, without a
	// password; "": it follows the archive alone. With a plan for a standby.
	PrimaryConnInfo string
	// KeepArchiveMode leaves archive_mode as it was in the backup. Else it is
	// set to off, so that a clone does not archive into its origin's
	// repositories.
	KeepArchiveMode bool
	// Settings are further settings for postgresql.auto.conf, in this order.
	Settings []Setting
	// Workers is how many goroutines fetch, decode and write at a time, 1 to
	// 64. Each takes about 4 MiB. 0: three per processor, at least 4.
	Workers int
	// Progress is told how it goes; nil: nobody.
	Progress Progress
	Log      *zap.Logger // nil: none

	// fault, if not nil, is called at each step that a crash could come
	// between; an error from it ends the restore there, without any cleaning
	// up. For tests.
	fault func(step string) error
}

// Progress is told how a restore goes. Its methods are called from many
// goroutines and must not block.
type Progress interface {
	// Stage says what the restore does from now on, in a few words for people.
	Stage(what string)
	// Total says how many bytes there are to restore.
	Total(bytes int64)
	// Add says that so many more bytes were restored.
	Add(bytes int64)
}

type noProgress struct{}

func (noProgress) Stage(string) {}
func (noProgress) Total(int64)  {}
func (noProgress) Add(int64)    {}

// Result is what Run did.
type Result struct {
	PGData      string
	Label       repo.Label
	Files       int64 // regular files
	Bytes       int64 // in them
	Tablespaces map[uint32]string
	Damaged     []Damaged
	LeftOut     []string // databases whose files are zeroes
	Owner       string   // who owns the files, if Run gave them away; else ""
	Took        time.Duration
}

const (
	maxWorkers = 64
	minWorkers = 4
)

func (o *Options) normalize() error {
	if o.PGData == "" {
		return fmt.Errorf("%w: no directory to restore into", ErrBadRequest)
	}
	dir, err := filepath.Abs(o.PGData)
	if err != nil {
		return fmt.Errorf("find %s: %w", o.PGData, err)
	}
	o.PGData = dir
	if dir == "/" {
		return fmt.Errorf("%w: the root directory cannot be a data directory", ErrBadRequest)
	}
	if o.Workers == 0 {
		o.Workers = max(minWorkers, 3*cores.Count())
	}
	if o.Workers < 1 || o.Workers > maxWorkers {
		return fmt.Errorf("%w: %d workers (1 to %d)", ErrBadRequest, o.Workers, maxWorkers)
	}
	for _, s := range o.Settings {
		if err := s.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrBadRequest, err)
		}
	}
	if err := o.checkPlaces(); err != nil {
		return err
	}
	if o.RestoreCommand == "" {
		return fmt.Errorf("%w: no restore_command", ErrBadRequest)
	}
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return nil
}

// checkPlaces checks what is named in the data directory.
func (o *Options) checkPlaces() error {
	for name, dir := range o.Links {
		if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || name == "global" || name == "pg_tblspc" {
			return fmt.Errorf("%w: %q cannot be mapped elsewhere: expected a directory in the data directory, such as pg_wal", ErrBadRequest, name)
		}
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%w: %s would go to %q, which is not an absolute path", ErrBadRequest, name, dir)
		}
		o.Links[name] = filepath.Clean(dir)
	}
	if len(o.Keep) > 0 && !o.Delta {
		return fmt.Errorf("%w: files are kept in a restore in place only", ErrBadRequest)
	}
	if o.DiscardWAL && !o.Delta {
		return fmt.Errorf("%w: there is WAL to discard in a restore in place only", ErrBadRequest)
	}
	for _, name := range o.Keep {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("%w: %q cannot be kept: expected the name of a file or directory in the data directory", ErrBadRequest, name)
		}
		if !mayKeep(name) {
			return fmt.Errorf("%w: %s cannot be kept: it is part of what is restored", ErrBadRequest, name)
		}
	}
	return nil
}

// mayKeep says what users may keep: what the server does not write itself.
func mayKeep(name string) bool {
	switch name {
	case "pg_hba.conf", "pg_ident.conf", "pg_log":
		return true
	case "base", "global", "PG_VERSION", "backup_label", "backup_manifest", "tablespace_map", "recovery.signal", "standby.signal",
		"postgresql.auto.conf", "postmaster.pid", "postmaster.opts", "current_logfiles", markerFile:
		return false
	}
	return !strings.HasPrefix(name, "pg_")
}
