// Package scratch restores a cluster into a directory that is thrown away
// afterwards, and opens it there: to take something out of it ([Dump], [Load]),
// or to see that it can be done.
//
// Nothing of it can touch the cluster that it comes from. It listens on a socket
// in its own directory and nowhere else, archives nothing, has no libraries
// preloaded and no settings but those it needs to recover. It does not make
// anything durable: it is not meant to outlive anything.
//
// It is removed when it is closed. If the process is killed, the kernel ends the
// server, and the next scratch restore below the same parent removes the
// directory: its name begins with "walkeep-scratch-", and a lock in it says
// whether somebody still uses it.
package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/restore"
	"github.com/walkeep/walkeep/restore/follow"
)

// Options of Open.
type Options struct {
	// Parent is the directory below which the scratch directory is made; it needs
	// the room of what is restored.
	Parent string
	BinDir string // of the server's programs; "": PATH
	// Users are roles that may be superusers of the cluster; postgres, and the
	// user that we run as, are tried too.
	Users []string
	Plan  *restore.Plan
	// Restore says how to restore; PGData, Delta and the maps are ours.
	Restore restore.Options
	// Settings are "name=value" for the server besides.
	Settings []string
	// Recovering is told how far replay is; nil: nobody.
	Recovering func(follow.Replay)
	Log        *zap.Logger // nil: none
}

// Cluster is a scratch cluster that is open.
type Cluster struct {
	PGData   string
	BinDir   string
	Host     string // the directory of its socket
	User     string // a superuser
	Restored *restore.Result
	Outcome  *follow.Outcome
	dir      *dir
	server   *follow.Server
}

const (
	dataDir = "data"
	// Port is part of the name of the socket.
	Port = "5432"
	// maxSocket is what the path of a socket may have, bytes (UNIXSOCK_PATH_BUFLEN).
	maxSocket = 107
)

// Open restores, recovers and opens a scratch cluster. Close it. The errors are
// those of restore.Run and follow.Server.Wait.
func Open(ctx context.Context, o Options) (_ *Cluster, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	parent, err := filepath.Abs(o.Parent)
	if err != nil {
		return nil, fmt.Errorf("find the scratch space: %w", err)
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil {
		return nil, fmt.Errorf("find the scratch space: %w", err)
	}
	d, err := makeDir(parent, o.Log)
	if err != nil {
		return nil, err
	}
	c := &Cluster{PGData: filepath.Join(d.path, dataDir), BinDir: o.BinDir, Host: filepath.Join(d.path, "run"), dir: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if n := len(filepath.Join(c.Host, ".s.PGSQL."+Port)); n > maxSocket {
		return nil, fmt.Errorf("%w: the path of the scratch space, %s, is %d bytes too long for a socket in it", restore.ErrBadRequest, parent, n-maxSocket)
	}
	r := o.Restore
	r.PGData, r.Delta, r.Keep, r.Links, r.Tablespaces = c.PGData, false, nil, nil, nil
	r.TablespacesBelow, r.KeepArchiveMode, r.RecoveryEndCommand = filepath.Join(d.path, "tablespaces"), false, ""
	if c.Restored, err = restore.Run(ctx, o.Plan, r); err != nil {
		return nil, err
	}
	if err := c.start(ctx, o); err != nil {
		return nil, err
	}
	return c, c.findUser(ctx, o.Users)
}

// start starts the server and waits until it is open.
func (c *Cluster) start(ctx context.Context, o Options) error {
	control, err := pg.ReadControl(c.PGData)
	if err != nil {
		return fmt.Errorf("read pg_control of the scratch cluster: %w", err)
	}
	if err := c.makeRun(); err != nil {
		return err
	}
	settings := append(c.settings(control), o.Settings...)
	if c.server, err = follow.Start(follow.Options{
		PGData: c.PGData, BinDir: o.BinDir, Log: filepath.Join(c.dir.path, "server.log"), Settings: settings, Tied: true,
	}); err != nil {
		return err
	}
	c.Outcome, err = c.server.Wait(ctx, follow.Goal{
		End: follow.Open, From: o.Plan.Backup.StartLSN, To: o.Plan.Stop.LSN, SegmentSize: o.Plan.SegmentSize,
		ConnInfo: "user=postgres", Progress: o.Recovering,
	})
	return err
}

// makeRun makes the directory of the socket and the files of the server that it
// does not find in PGDATA, all for the server's user.
func (c *Cluster) makeRun() error {
	st, err := os.Stat(c.PGData)
	if err != nil {
		return err
	}
	own := func(path string) error {
		sys, ok := st.Sys().(*syscall.Stat_t)
		if os.Geteuid() != 0 || !ok {
			return nil
		}
		return os.Chown(path, int(sys.Uid), int(sys.Gid))
	}
	if err := errors.Join(os.Mkdir(c.Host, 0o700), own(c.Host)); err != nil {
		return fmt.Errorf("make the directory of the scratch server's socket: %w", err)
	}
	for name, content := range map[string]string{"hba": "local all all trust\n", "ident": "", "conf": ""} {
		path := filepath.Join(c.Host, name)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), own(path)); err != nil {
			return fmt.Errorf("configure the scratch server: %w", err)
		}
	}
	return nil
}

// settings are what the server runs with. They stand on its command line, where
// they win over what came with the backup: memory for a large machine, libraries
// that are not installed here.
func (c *Cluster) settings(control pg.Control) []string {
	run := func(name string) string { return filepath.Join(c.Host, name) }
	return []string{
		"config_file=" + run("conf"), "hba_file=" + run("hba"), "ident_file=" + run("ident"), "data_directory=" + c.PGData,
		"external_pid_file=", "listen_addresses=", "unix_socket_directories=" + c.Host, "unix_socket_permissions=0700", "port=" + Port,
		"archive_mode=off", "hot_standby=off", "ssl=off", "autovacuum=off", "jit=off",
		"shared_preload_libraries=", "session_preload_libraries=", "local_preload_libraries=",
		"logging_collector=off", "log_destination=stderr", "log_min_messages=warning", "log_statement=none",
		"fsync=off", "full_page_writes=off", "synchronous_commit=off", "synchronous_standby_names=", "max_wal_size=4GB",
		"shared_buffers=128MB", "huge_pages=off", "wal_level=minimal", "max_wal_senders=0", "default_transaction_read_only=off",
		// What is prepared must fit.
		fmt.Sprintf("max_prepared_transactions=%d", control.MaxPreparedXacts),
		fmt.Sprintf("max_locks_per_transaction=%d", max(control.MaxLocksPerXact, 64)),
		fmt.Sprintf("max_connections=%d", max(control.MaxConnections, 20)),
	}
}

// ErrNoSuperuser: none of the roles tried is a superuser.
var ErrNoSuperuser = errors.New("no superuser of the cluster is known")

// findUser finds a superuser; everybody is let in.
func (c *Cluster) findUser(ctx context.Context, users []string) error {
	users = append(slices.Clone(users), "postgres")
	if u, err := user.Current(); err == nil {
		users = append(users, u.Username)
	}
	var last error
	for _, u := range users {
		super, err := c.isSuper(ctx, u)
		if err != nil {
			last = err
			continue
		}
		if super {
			c.User = u
			return nil
		}
	}
	return fmt.Errorf("%w: tried %s (%w)", ErrNoSuperuser, strings.Join(users, ", "), last)
}

func (c *Cluster) isSuper(ctx context.Context, name string) (super bool, err error) {
	conn, err := c.connect(ctx, name, "postgres")
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "select rolsuper from pg_roles where rolname = current_user").Scan(&super)
	return super, err
}

// Connect connects to a database of it as the superuser.
func (c *Cluster) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return c.connect(ctx, c.User, database)
}

func (c *Cluster) connect(ctx context.Context, as, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.User, cfg.Database, cfg.Password = c.Host, 5432, as, database, ""
	cfg.Fallbacks, cfg.RuntimeParams = nil, map[string]string{"application_name": "walkeep"}
	return pgx.ConnectConfig(ctx, cfg)
}

// Close ends the server and removes everything.
func (c *Cluster) Close() error {
	if c.server != nil {
		c.server.Kill()
	}
	return c.dir.remove()
}
