package patroni

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Clone is a server on the hub, in a data directory that was restored there. It
// has no Patroni.
type Clone struct {
	cluster *Cluster
	dir     string // as the hub sees it
	port    int
	log     string
}

// StartClone starts a server in a directory of the hub. What Patroni gives its
// servers on the command line is given here too: it is not in the files.
func (c *Cluster) StartClone(ctx context.Context, dir string, port int) (*Clone, error) {
	_ = ctx
	k := &Clone{cluster: c, dir: dir, port: port, log: filepath.Join(c.Network.Hub.Disk, "clone.log")}
	_ = os.Remove(k.log)
	args := []string{"-D", dir}
	for name, value := range map[string]string{
		"port": strconv.Itoa(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
		"hba_file": filepath.Join(dir, "pg_hba.conf"), "ident_file": filepath.Join(dir, "pg_ident.conf"),
		"max_wal_senders": "12", "max_connections": "100", "cluster_name": "clone", "log_min_messages": "info",
	} {
		args = append(args, "-c", name+"="+value)
	}
	return k, c.Network.Hub.Spawn(k.log, filepath.Join(c.bin, "postgres"), args...)
}

// matches is for the processes of the clone's postmaster and its children.
func (k *Clone) matches(cmdline string) bool {
	return strings.Contains(cmdline, "postgres -D "+k.dir) || strings.HasPrefix(cmdline, "postgres: clone:")
}

// WaitPromoted returns a connection when recovery has ended.
func (k *Clone) WaitPromoted(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable connect_timeout=3", k.port))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = k.cluster.Network.dial
	for tries := 0; ; tries++ {
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			var recovering bool
			if err = conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovering); err == nil && !recovering {
				return conn, nil
			}
			_ = conn.Close(ctx)
		}
		if tries > 10 && len(k.cluster.Network.Hub.processes(k.matches)) == 0 {
			return nil, fmt.Errorf("the clone ended; its log:\n%s", tail(k.log, 40))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the end of recovery of the clone: %w; its log:\n%s", ctx.Err(), tail(k.log, 40))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Log is the end of its log.
func (k *Clone) Log(lines int) string { return tail(k.log, lines) }

// Stop kills it.
func (k *Clone) Stop() error {
	deadline := time.Now().Add(20 * time.Second)
	for k.cluster.Network.Hub.Signal(syscall.SIGKILL, k.matches) > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("the clone in %s does not die", k.dir)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}
