package serve

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/ports"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/repo"
)

// world is a primary and a standby with an agent each, and repositories.
type world struct {
	env      *postgres.Env
	tls      string
	tokens   string
	dirs     []string           // of repositories
	servers  []*postgres.Server // pg-0, pg-1
	sites    []*walkeep.Site    // of agents
	agents   []*walkeep.Program
	address  []string // of agents
	walrepos string   // repositories, for the helper too
}

// newWorld makes a world. Agents store as many bytes in a second as limit says
// ("": no bound), so that a backup lasts.
func newWorld(t *testing.T, ctx context.Context, repos int, limit string) *world {
	env := postgres.New(t)
	w := &world{env: env}
	w.tls, w.tokens = secrets(t, env)
	p, err := env.InitDB(ctx, postgres.Options{Major: 15, SegmentSize: 1 << 20, NoFsync: true})
	require.NoError(t, err)
	bound := ""
	if limit != "" {
		bound = fmt.Sprintf(", limit: {upload: %s}, compression: {codec: none}", limit)
	}
	for i := range repos {
		w.dirs = append(w.dirs, env.TempDir(t, fmt.Sprintf("repo%d", i+1)))
		w.walrepos += fmt.Sprintf("  - {name: repo%d, filesystem: {path: %s}%s}\n", i+1, w.dirs[i], bound)
	}
	w.servers = []*postgres.Server{p}
	w.addAgent(t)
	require.NoError(t, p.Configure(w.sites[0].ArchiveSettings()))
	require.NoError(t, p.Configure(map[string]string{"wal_keep_size": "64MB"}))
	require.NoError(t, p.Start(ctx))
	w.servers = append(w.servers, env.StartStandby(t, p, postgres.Options{}))
	w.addAgent(t)
	require.NoError(t, w.servers[1].Configure(w.sites[1].ArchiveSettings()))
	require.NoError(t, w.servers[1].Restart(ctx))
	for i := range w.servers {
		w.startAgent(t, i)
	}
	return w
}

// addAgent makes the configuration of the agent of the last server.
func (w *world) addAgent(t *testing.T) {
	i := len(w.sites)
	w.address = append(w.address, ports.For(t).Address())
	site, err := walkeep.NewSite(w.env, "")
	require.NoError(t, err)
	w.sites = append(w.sites, site)
	w.configureAgent(t, i)
}

func (w *world) configureAgent(t *testing.T, i int) {
	socket := filepath.Join(w.env.TempDir(t, "run"), "agent.sock")
	require.NoError(t, w.sites[i].Configure(fmt.Sprintf(`cluster: hippo
postgres: {nodes: [%s]}
archive: {require: 1}
agent: {socket: %s, rescan: 1s, standby-delay: 300ms, listen: "%s", tls: {cert-file: %s/cert.pem, key-file: %s/key.pem}, token-file: %s}
repos:
%s`, w.nodes(true, true), socket, w.address[i], w.tls, w.tls, w.tokens, w.walrepos)))
}

// nodes are the nodes for a configuration.
func (w *world) nodes(here, plain bool) string {
	var all []string
	for i, s := range w.servers {
		pgdata, agent := "/nonexistent/pgdata", ""
		if here {
			pgdata = s.DataDir
		}
		if !plain {
			agent = fmt.Sprintf(", agent: \"https://%s\"", w.address[i])
		}
		all = append(all, fmt.Sprintf("{name: pg-%d, conninfo: \"%s\", pgdata: %s%s}", i, s.ConnInfo(), pgdata, agent))
	}
	return strings.Join(all, ", ")
}

func (w *world) startAgent(t *testing.T, i int) {
	w.configureAgent(t, i)
	p := w.sites[i].Start(t, fmt.Sprintf("agent of pg-%d", i), "agent", "--node", fmt.Sprintf("pg-%d", i))
	if i < len(w.agents) {
		w.agents[i] = p
	} else {
		w.agents = append(w.agents, p)
	}
}

// config is the configuration of a service. repos has what comes behind each
// repository's place.
func (w *world) config(repos ...string) string {
	text := fmt.Sprintf("cluster: hippo\ntimezone: UTC\npostgres: {nodes: [%s]}\narchive: {require: 1}\nagent: {socket: /nonexistent/socket, tls: {ca-file: %s/ca.pem}, token-file: %s}\nrepos:\n",
		w.nodes(false, false), w.tls, w.tokens)
	for i, dir := range w.dirs {
		more := ""
		if i < len(repos) {
			more = repos[i]
		}
		text += fmt.Sprintf("  - {name: repo%d, filesystem: {path: %s}%s}\n", i+1, dir, more)
	}
	return text
}

// backups are those of a repository.
func (w *world) backups(t *testing.T, i int) []repo.Summary {
	t.Helper()
	r := open(t, w.dirs[i])
	epochs, err := r.Epochs(t.Context())
	require.NoError(t, err)
	require.Len(t, epochs, 1)
	all, err := r.Epoch(epochs[0].SystemID).Backups(t.Context())
	require.NoError(t, err)
	return all
}

// requireOrder: runs of a repository do not overlap, and nothing was done twice.
func (w *world) requireOrder(t *testing.T, i int) []repo.JobRun {
	t.Helper()
	runs, err := open(t, w.dirs[i]).Runs(t.Context(), time.Time{})
	require.NoError(t, err)
	done := map[string]bool{}
	for j, r := range runs {
		if r.Running() {
			continue
		}
		if j+1 < len(runs) {
			require.False(t, runs[j+1].Started.Before(r.Ended), "%s overlaps: %+v, %+v", w.dirs[i], r, runs[j+1])
		}
		if r.Outcome == repo.RunDone {
			key := r.Kind + r.Due.String()
			require.False(t, done[key], "twice: %+v", r)
			done[key] = true
		}
	}
	return runs
}
