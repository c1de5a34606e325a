package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/agent"
	"github.com/walkeep/walkeep/agent/wire"
	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/prefix"
)

// runningAgent is a `walkeep agent` beside a server.
type runningAgent struct {
	*walkeep.Program
	site   *walkeep.Site
	pgdata string
	socket string
}

// agentSite is a configuration of its own for a node: each has its own socket.
func agentSite(t *testing.T, env *postgres.Env, yaml string) (*walkeep.Site, string) {
	t.Helper()
	socket := filepath.Join(env.TempDir(t, "run"), "agent.sock")
	site, err := walkeep.NewSite(env, fmt.Sprintf("agent: {socket: %s, rescan: 1s, standby-delay: 300ms}\n%s", socket, yaml))
	require.NoError(t, err)
	return site, socket
}

// startAgent starts an agent and waits until it has looked through pg_wal.
func startAgent(t *testing.T, site *walkeep.Site, socket, pgdata string) *runningAgent {
	t.Helper()
	return runAgent(t, site, socket, pgdata, "--pgdata", pgdata)
}

// runAgent is startAgent with flags.
func runAgent(t *testing.T, site *walkeep.Site, socket, pgdata string, flags ...string) *runningAgent {
	t.Helper()
	program := site.Start(t, "agent of "+pgdata, append([]string{"agent"}, flags...)...)
	a := &runningAgent{Program: program, site: site, pgdata: pgdata, socket: socket}
	a.until(t, "a survey", func(s agent.Status) bool { return s.Surveyed != nil })
	return a
}

// status asks the agent.
func (a *runningAgent) status() (s agent.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := wire.Ask(ctx, a.socket, wire.Request{Verb: wire.Status})
	if err == nil && answer.Kind != wire.OK {
		err = errors.New(answer.Text)
	}
	if err == nil {
		err = json.Unmarshal([]byte(answer.Text), &s)
	}
	return s, err
}

// until waits for a state of the agent.
func (a *runningAgent) until(t *testing.T, what string, ok func(agent.Status) bool) agent.Status {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		s, err := a.status()
		if err == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for %s of the agent of %s: %v, %+v\n%s", what, a.pgdata, err, s, a.Log)
		}
		select {
		case <-a.Done:
			t.Fatalf("the agent of %s ended\n%s", a.pgdata, a.Log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// epochIn opens the repository below dir and returns the server's epoch.
func epochIn(t *testing.T, dir string, s *postgres.Server) *repo.Epoch {
	t.Helper()
	below, err := filesystem.New(filesystem.Options{Path: dir})
	require.NoError(t, err)
	store, err := prefix.New(below, "hippo")
	require.NoError(t, err)
	r, err := repo.Open(repo.Options{Name: "repo", Store: store, Cluster: "hippo"})
	require.NoError(t, err)
	control, err := pg.ReadControl(s.DataDir)
	require.NoError(t, err)
	return r.Epoch(control.SystemID)
}

// archived waits until a repository has the segments [from, to] of a timeline.
func archived(t *testing.T, e *repo.Epoch, timeline pg.Timeline, from, to pg.SegmentNo) {
	t.Helper()
	var missing []pg.SegmentNo
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if missing, err = e.MissingSegments(context.Background(), timeline, from, to); err == nil && len(missing) == 0 {
			return
		}
	}
	t.Fatalf("segments %v of timeline %d are not archived: %v", missing, timeline, err)
}

// TestAgentClosesTheHole: archive_mode=on, so that the standby marks what it
// receives as done. The primary's archiver does nothing, and its agent is not
// there; the primary dies and the standby is promoted. Nobody but the standby's
// agent can have archived what lies before the promotion.
func TestAgentClosesTheHole(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			env := postgres.New(t)
			dir := env.TempDir(t, "repo")
			site, socket := agentSite(t, env, fmt.Sprintf("cluster: hippo\nrepos:\n  - {name: repo1, filesystem: {path: %s}}\n", dir))
			settings := site.ArchiveSettings()
			settings["archive_mode"], settings["archive_command"] = "on", "false"
			primary := env.Primary(t, postgres.Options{Major: major, Settings: settings})
			primary.MustExec(t, "create table t as select 1 as i")
			standby := env.StartStandby(t, primary, postgres.Options{Name: "standby", Settings: map[string]string{
				"archive_command": site.ArchiveSettings()["archive_command"], "hot_standby": "on",
			}})
			first, err := primary.SwitchWAL(ctx)
			require.NoError(t, err)
			var last pg.SegmentName
			for range 5 {
				primary.MustExec(t, "insert into t select 1 from generate_series(1, 1000)")
				last, err = primary.SwitchWAL(ctx)
				require.NoError(t, err)
			}
			primary.MustExec(t, "insert into t select 1 from generate_series(1, 999)") // stays in an unfinished segment
			at, err := primary.LSN(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitReplay(ctx, at))
			require.NoError(t, primary.Kill9())
			require.NoError(t, standby.Promote(ctx))
			_, err = os.Stat(filepath.Join(standby.DataDir, "pg_wal", "archive_status", string(last)+".done"))
			require.NoError(t, err, "the standby takes it for archived")

			a := startAgent(t, site, socket, standby.DataDir)
			standby.MustExec(t, "insert into t select 1 from generate_series(1, 1000)")
			new1, err := standby.SwitchWAL(ctx)
			require.NoError(t, err)
			require.NoError(t, standby.WaitArchived(ctx, new1))

			size := pg.DefaultSegmentSize
			number := func(n pg.SegmentName) pg.SegmentNo {
				no, err := n.Number(size)
				require.NoError(t, err)
				return no
			}
			e := epochIn(t, dir, standby)
			archived(t, e, 1, number(first), number(last))
			archived(t, e, 2, number(last)+1, number(new1))
			histories, err := e.Histories(ctx)
			require.NoError(t, err)
			require.Contains(t, histories, pg.Timeline(2))
			a.until(t, "an empty queue", func(s agent.Status) bool { return s.Repos[0].Waiting == 0 })
			partials, err := e.Partials(ctx)
			require.NoError(t, err)
			require.NotEmpty(t, partials)
			require.Equal(t, size.Name(1, number(last)+1), partials[0].Segment)
		})
	}
}
