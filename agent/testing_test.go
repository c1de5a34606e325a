package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
)

const cluster pg.SystemID = 7400000000000000001

const segmentSize pg.SegmentSize = 1 << 20

// node is a data directory without a server.
type node struct {
	dir    string
	stream *waltest.Stream
}

func newNode(t *testing.T, state pg.ControlState) *node {
	t.Helper()
	n := &node{dir: t.TempDir(), stream: waltest.New(cluster)}
	n.control(t, cluster, state, 1)
	require.NoError(t, os.MkdirAll(filepath.Join(n.dir, "pg_wal", "archive_status"), 0o700))
	return n
}

func (n *node) control(t *testing.T, id pg.SystemID, state pg.ControlState, timeline pg.Timeline) {
	t.Helper()
	require.NoError(t, waltest.WriteControl(n.dir, waltest.Control(id, state, timeline, segmentSize)))
}

// file writes a file of pg_wal; mark is "", ".ready" or ".done".
func (n *node) file(t *testing.T, name string, content []byte, mark string) string {
	t.Helper()
	path := filepath.Join(n.dir, "pg_wal", name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	if mark != "" {
		require.NoError(t, os.WriteFile(filepath.Join(n.dir, "pg_wal", "archive_status", name+mark), nil, 0o600))
	}
	return path
}

// segments writes the i-th to j-th segment, complete ones, and returns their
// names.
func (n *node) segments(t *testing.T, i, j int, mark string) (names []pg.SegmentName) {
	t.Helper()
	n.stream.Fill(j)
	for k := i; k <= j; k++ {
		name, content := n.stream.Segment(k)
		n.file(t, string(name), content, mark)
		names = append(names, name)
	}
	return names
}

func (n *node) remove(t *testing.T, names ...pg.SegmentName) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, os.Remove(filepath.Join(n.dir, "pg_wal", string(name))))
	}
}

func repositories(t *testing.T, stores ...object.Store) (all []*repo.Repository) {
	t.Helper()
	for i, s := range stores {
		r, err := repo.Open(repo.Options{Name: fmt.Sprintf("repo%d", i+1), Store: s, Cluster: "hippo"})
		require.NoError(t, err)
		all = append(all, r)
	}
	return all
}

// running is an agent under test.
type running struct {
	*Agent
	stop func() error
}

// start runs an agent until the test ends.
func start(t *testing.T, n *node, o Options, stores ...object.Store) *running {
	t.Helper()
	o.PGData, o.Repos, o.Log = n.dir, repositories(t, stores...), zaptest.NewLogger(t)
	if o.Rescan == 0 {
		o.Rescan = 50 * time.Millisecond
	}
	if o.StandbyDelay == 0 {
		o.StandbyDelay = time.Millisecond
	}
	a, err := New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	ended := false
	r := &running{Agent: a, stop: func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}}
	t.Cleanup(func() { require.NoError(t, r.stop()) })
	r.until(t, "a survey", func(s Status) bool { return s.Surveyed != nil })
	return r
}

// until waits for a state.
func (r *running) until(t *testing.T, what string, ok func(Status) bool) Status {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		s := r.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for %s: %+v", what, s)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// has waits until a store has exactly these segments of timeline 1.
func has(t *testing.T, store object.Store, names ...pg.SegmentName) {
	t.Helper()
	e := repositories(t, store)[0].Epoch(cluster)
	var got []pg.SegmentName
	deadline := time.Now().Add(time.Minute)
	for {
		got = nil
		err := e.Segments(context.Background(), 1, 0, 1<<40, func(n pg.SegmentNo) error {
			got = append(got, segmentSize.Name(1, n))
			return nil
		})
		if err == nil && fmt.Sprint(got) == fmt.Sprint(names) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("expected %v in the repository, found %v: %v", names, got, err)
		}
		require.True(t, err == nil || errors.Is(err, repo.ErrNotFound) || deadline.After(time.Now()), err)
		time.Sleep(5 * time.Millisecond)
	}
}
