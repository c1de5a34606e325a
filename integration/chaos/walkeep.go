package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/walkeep/walkeep/integration/patroni"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
)

// walkeepTool archives into an S3 gateway on the hub and into a directory that
// all nodes share.
type walkeepTool struct {
	env      *postgres.Env
	network  *patroni.Network
	programs walkeep.Programs
	wrapper  string // what stands before archive_command
	repo     string // the "repos" section
	shared   string // repo2
	agent    bool
}

func newWalkeepTool(env *postgres.Env, n *patroni.Network, w *world) (*walkeepTool, error) {
	programs, err := walkeep.Build()
	if err != nil {
		return nil, err
	}
	t := &walkeepTool{env: env, network: n, programs: programs, wrapper: w.wrapper, shared: w.shared, agent: w.o.agent}
	// A store that does not answer must not hold a push for minutes: PostgreSQL
	// calls again.
	const patience = "    retry: {total: 15s, max-delay: 1s, stall: 10s}\n"
	t.repo = fmt.Sprintf("repos:\n  - name: repo1\n    %s\n%s  - name: repo2\n    filesystem: {path: %s}\n%s",
		w.s3.YAML(), patience, w.shared, patience)
	// The hub restores.
	return t, t.write(n.Hub, "")
}

func (t *walkeepTool) config() string { return filepath.Join(t.network.Local, "walkeep.yaml") }

func (t *walkeepTool) write(m *patroni.Machine, nodes string) error {
	path := filepath.Join(m.Disk, "walkeep.yaml")
	return errors.Join(os.WriteFile(path, []byte("cluster: hippo\nagent: {socket: "+filepath.Join(t.network.Local, "agent.sock")+"}\n"+nodes+t.repo), 0o600), t.env.Own(path))
}

func (t *walkeepTool) prepare(n *patroni.Node) error {
	return t.write(n.Machine, fmt.Sprintf("postgres:\n  nodes:\n    - {name: %s, conninfo: %q, pgdata: %s}\n",
		n.Name, "host=127.0.0.1 user=postgres sslmode=disable", filepath.Join(t.network.Local, "pgdata")))
}

func (t *walkeepTool) archiveCommand() string {
	return fmt.Sprintf(`%s %s --config %s push "%%p"`, t.wrapper, t.programs.WAL(), t.config())
}

func (t *walkeepTool) restoreCommand() string {
	return fmt.Sprintf(`%s --config %s get "%%f" "%%p"`, t.programs.WAL(), t.config())
}

func (t *walkeepTool) begin(context.Context, *patroni.Node) error { return nil }

func (t *walkeepTool) repos() []string { return []string{"repo1", "repo2"} }

func (t *walkeepTool) run(ctx context.Context, m *patroni.Machine, args ...string) (string, error) {
	return m.Run(ctx, t.programs.Walkeep(), append([]string{"--config", t.config()}, args...)...)
}

func (t *walkeepTool) backup(ctx context.Context, leader *patroni.Node) (*backup, error) {
	b := &backup{labels: map[string]string{}}
	for _, name := range t.repos() {
		out, err := t.run(ctx, leader.Machine, "backup", "--repo", name, "--type", "full")
		if err != nil {
			return nil, err
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		b.labels[name] = lines[len(lines)-1]
	}
	list, err := t.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range list.Repos {
		for _, have := range r.Backups {
			if have.Label == b.labels[r.Name] && (b.start == 0 || have.StartLSN < b.start) {
				b.start = have.StartLSN
			}
		}
	}
	return b, nil
}

// listing is the part of `walkeep list --json` that is read here.
type listing struct {
	Repos []struct {
		Name    string
		Status  string
		Backups []struct {
			Label    string
			StartLSN pg.LSN `json:"start_lsn"`
		}
		WAL []struct {
			Timeline pg.Timeline
			From, To pg.LSN
			Gaps     []struct{ From, To pg.LSN }
		}
	}
}

// list asks again when a repository does not answer: a machine with three
// clusters on it can be slow.
func (t *walkeepTool) list(ctx context.Context) (l listing, err error) {
	var out string
	for range 5 {
		if out, err = t.run(ctx, t.network.Hub, "list", "--json"); err == nil {
			return l, json.Unmarshal([]byte(out), &l)
		}
		sleep(ctx, 2*time.Second)
	}
	return l, err
}

func (t *walkeepTool) holdings(ctx context.Context, size pg.SegmentSize) ([]holding, error) {
	l, err := t.list(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]holding, len(l.Repos))
	for i, r := range l.Repos {
		out[i] = holding{}
		for _, w := range r.WAL {
			for n := size.SegmentOf(w.From); size.Start(n) < w.To; n++ {
				out[i].add(w.Timeline, n)
			}
			for _, g := range w.Gaps {
				for n := size.SegmentOf(g.From); size.Start(n) < g.To; n++ {
					delete(out[i][w.Timeline], n)
				}
			}
		}
	}
	return out, nil
}

func (t *walkeepTool) restore(ctx context.Context, b *backup, repo, dir string) error {
	_, err := t.run(ctx, t.network.Hub, "restore", "--pgdata", dir, "--repo", repo, "--backup", b.labels[repo])
	return err
}

// startAgent starts the agent beside a server, unless it runs.
func (t *walkeepTool) startAgent(n *patroni.Node) error {
	if !t.agent || n.Signal(0, isAgent) > 0 {
		return nil
	}
	return n.Spawn(filepath.Join(n.Disk, "agent.log"), t.programs.Walkeep(), "--config", t.config(), "agent")
}

func (t *walkeepTool) killAgent(n *patroni.Node) int { return n.Kill9(isAgent) }

func isAgent(cmdline string) bool { return strings.HasSuffix(cmdline, " agent") }

// notes counts what lies under conflict/ in the shared directory.
func (t *walkeepTool) notes() []string {
	n := 0
	_ = filepath.WalkDir(t.shared, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "/conflict/") {
			n++
		}
		return nil
	})
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d divergent files under conflict/ in repo2", n)}
}
