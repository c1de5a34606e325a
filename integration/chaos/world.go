package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/walkeep/walkeep/integration/patroni"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
)

// options of one run.
type options struct {
	tool        string // walkeep or pgbackrest
	archiveMode string // on or always
	agent       bool
	rounds      int
	plans       []roundPlan // instead of rounds drawn by seed
	seed        uint64
	clients     int
	pause       time.Duration // of each client after a transaction
	log         io.Writer
	enough      <-chan struct{} // closed: the round under way is the last; nil: all are wanted
}

func (o options) isEnough() bool {
	select {
	case <-o.enough:
		return true
	default:
		return false
	}
}

// name is the column in the report.
func (o options) name() string {
	name := o.tool + ", archive_mode=" + o.archiveMode
	if o.agent {
		name += ", agent"
	}
	return name
}

// segmentSize of the clusters: as small as it gets, so that many change hands.
const segmentSize = pg.SegmentSize(1 << 20)

// world is one cluster, the tool under test, and the clients.
type world struct {
	o       options
	env     *postgres.Env
	network *patroni.Network
	cluster *patroni.Cluster
	s3      *patroni.S3
	shared  string // a directory that all nodes have, a repository
	wrapper string // a script that archives slowly when told to
	tool    tool
	ledger  *ledger
	writers *writers
	r       *rand.Rand
	first   *backup  // the one taken before anything went wrong
	stuck   []string // replicas that had to be made anew in this round
}

// newWorld starts it all. Close it, also after an error.
func newWorld(ctx context.Context, o options) (*world, error) {
	w := &world{o: o, ledger: &ledger{acked: map[int64]struct{}{}}, r: rand.New(rand.NewPCG(o.seed, 0))}
	var err error
	if w.env, err = postgres.NewEnv(); err != nil {
		return w, err
	}
	if w.network, err = patroni.NewNetwork(w.env); err != nil {
		return w, err
	}
	if err := w.makeShared(); err != nil {
		return w, err
	}
	if err := w.makeWrapper(); err != nil {
		return w, err
	}
	if w.s3, err = w.network.StartS3(ctx); err != nil {
		return w, err
	}
	if err := w.network.StartEtcd(ctx); err != nil {
		return w, err
	}
	switch o.tool {
	case "walkeep":
		w.tool, err = newWalkeepTool(w.env, w.network, w)
	case "pgbackrest":
		w.tool, err = newPgbackrestTool(w.env, w.network, w)
	default:
		err = fmt.Errorf("no tool %q", o.tool)
	}
	if err != nil {
		return w, err
	}
	if err := w.startCluster(ctx); err != nil {
		return w, err
	}
	leader, err := w.cluster.WaitLeader(ctx)
	if err != nil {
		return w, err
	}
	if err := w.tool.begin(ctx, leader); err != nil {
		return w, err
	}
	if _, err := leader.Text(ctx, ledgerTable); err != nil {
		return w, err
	}
	if w.first, err = w.tool.backup(ctx, leader); err != nil {
		return w, err
	}
	w.writers = startWriters(w.cluster, w.ledger, o.seed, o.clients, o.pause)
	return w, nil
}

func (w *world) startCluster(ctx context.Context) (err error) {
	w.cluster, err = patroni.NewCluster(ctx, w.network, patroni.Options{
		SegmentMB: int(segmentSize >> 20),
		Dynamic: map[string]any{"postgresql": map[string]any{"parameters": map[string]any{
			"archive_mode": w.o.archiveMode, "archive_command": w.tool.archiveCommand(), "restore_command": w.tool.restoreCommand(),
		}}},
		Prepare: w.tool.prepare,
	})
	if err != nil {
		return err
	}
	for _, n := range w.cluster.Nodes {
		if err := w.tool.startAgent(n); err != nil {
			return err
		}
	}
	return nil
}

// makeWrapper makes the script that stands before archive_command: a node whose
// disk has a file "slow" archives that many seconds late. It execs, so that
// exit code and signals are the tool's.
func (w *world) makeWrapper() error {
	dir, err := w.env.Mkdir("bin")
	if err != nil {
		return err
	}
	w.wrapper = filepath.Join(dir, "archive")
	text := fmt.Sprintf("#!/bin/sh\nif [ -e %[1]s/slow ]; then sleep \"$(cat %[1]s/slow)\"; fi\nexec \"$@\"\n", w.network.Local)
	return errors.Join(os.WriteFile(w.wrapper, []byte(text), 0o755), w.env.Own(w.wrapper))
}

func (w *world) slow(n *patroni.Node, seconds string) error {
	return os.WriteFile(filepath.Join(n.Disk, "slow"), []byte(seconds+"\n"), 0o644)
}

func (w *world) fast(n *patroni.Node) error {
	err := os.Remove(filepath.Join(n.Disk, "slow"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// makeShared makes the directory in one that is root's, so that nobody makes it
// again while it is away: pgBackRest would.
func (w *world) makeShared() error {
	dir, err := w.env.Mkdir("mnt")
	if err != nil {
		return err
	}
	w.shared = filepath.Join(dir, "shared")
	return errors.Join(os.Mkdir(w.shared, 0o700), w.env.Own(w.shared), os.Chown(dir, 0, 0), os.Chmod(dir, 0o755))
}

// hide takes the shared directory away from all, as a file server that died.
func (w *world) hide() error { return os.Rename(w.shared, w.away()) }

func (w *world) away() string { return filepath.Join(w.env.Dir(), "away") }

func (w *world) show() error {
	if _, err := os.Stat(w.away()); err != nil {
		return nil
	}
	return os.Rename(w.away(), w.shared)
}

func (w *world) close() error {
	if w.writers != nil {
		w.writers.close()
	}
	var errs []error
	if w.network != nil {
		errs = append(errs, w.network.Close())
	}
	if w.env != nil {
		errs = append(errs, w.env.Close())
	}
	return errors.Join(errs...)
}

func (w *world) logf(format string, args ...any) {
	fmt.Fprintf(w.o.log, "%s %s: %s\n", time.Now().UTC().Format("15:04:05"), w.o.name(), fmt.Sprintf(format, args...))
}
