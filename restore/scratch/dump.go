package scratch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/restore"
)

// Dump writes a database, or tables of it, into a file as pg_dump's custom format,
// which pg_restore reads. The file appears under its name when it is whole.
func (c *Cluster) Dump(ctx context.Context, database string, tables []string, path string) error {
	half := path + ".part"
	args := append(c.dumpArgs(database, tables), "--file="+half)
	if err := run(c.command(ctx, "pg_dump", args...)); err != nil {
		return errors.Join(err, removeIfThere(half))
	}
	if err := syncFile(half); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), removeIfThere(half))
	}
	if err := os.Rename(half, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), removeIfThere(half))
	}
	return nil
}

// Load loads a database, or tables of it, into another server's database. That is
// one transaction there: if it fails, nothing has changed.
func (c *Cluster) Load(ctx context.Context, database string, tables []string, conninfo string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("load into the other server: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dump := c.command(ctx, "pg_dump", c.dumpArgs(database, tables)...)
	load := c.command(ctx, "pg_restore", "--no-password", "--exit-on-error", "--single-transaction", "--dbname="+conninfo)
	load.Env = os.Environ() // a password file, say
	dump.Stdout, load.Stdin = w, r
	failed := make(chan error, 1)
	go func() {
		err := run(dump)
		if err != nil {
			cancel() // or what came until then would be committed
		}
		failed <- errors.Join(err, w.Close())
	}()
	err = run(load)
	_ = r.Close()
	if err != nil {
		cancel()
	}
	if dumped := <-failed; dumped != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return dumped
	}
	return err
}

func (c *Cluster) dumpArgs(database string, tables []string) []string {
	args := []string{"--no-password", "--format=custom", "--host=" + c.Host, "--port=" + Port, "--username=" + c.User}
	for _, t := range tables {
		args = append(args, "--table="+t)
	}
	// A name with '=' in it would be taken for a connection string.
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database)
	return append(args, "--dbname=dbname='"+quoted+"'")
}

// command is a client program of the server's own version.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if c.BinDir != "" {
		name = filepath.Join(c.BinDir, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

func run(cmd *exec.Cmd) error {
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// CheckTools says which of the client programs are not there.
func CheckTools(binDir string, names ...string) error {
	for _, name := range names {
		path := name
		if binDir != "" {
			path = filepath.Join(binDir, name)
		}
		if _, err := exec.LookPath(path); err != nil {
			return fmt.Errorf("%w: %w: the programs of the server's own version are needed (--bindir)", restore.ErrBadRequest, err)
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
