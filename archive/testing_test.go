package archive_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
)

const cluster pg.SystemID = 7400000000000000001

var (
	ctx  = context.Background()
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

// node is a data directory with a pg_wal and a pg_control, and no server.
type node struct{ dir string }

func newNode(t *testing.T, id pg.SystemID, state pg.ControlState) node {
	t.Helper()
	n := node{t.TempDir()}
	require.NoError(t, waltest.WriteControl(n.dir, waltest.Control(id, state, 1, 1<<20)))
	return n
}

// file writes a file of pg_wal and returns its path.
func (n node) file(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(n.dir, "pg_wal", name)
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path
}

// segment is a complete segment.
func segment() (string, []byte) {
	s := waltest.New(cluster)
	s.Commit(700, noon)
	s.RestorePoint("here", noon)
	s.Fill(0)
	name, b := s.Segment(0)
	return string(name), b
}

// switched is a segment that a switch ended early.
func switched() (string, []byte) {
	s := waltest.New(cluster)
	s.Noise(50)
	s.Switch()
	name, b := s.Segment(0)
	return string(name), b
}

// unfinished is a segment that is still being written.
func unfinished(records int) (string, []byte, pg.LSN) {
	s := waltest.New(cluster)
	s.Noise(records)
	name, b := s.Segment(0)
	return string(name), b, s.LSN()
}

func repository(t *testing.T, name string, store object.Store, keys *repo.Keys) *repo.Repository {
	t.Helper()
	r, err := repo.Open(repo.Options{Name: name, Store: store, Cluster: "hippo", Keys: keys})
	require.NoError(t, err)
	return r
}

func newArchive(t *testing.T, o archive.Options, stores ...object.Store) *archive.Archive {
	t.Helper()
	for i, s := range stores {
		o.Repos = append(o.Repos, repository(t, fmt.Sprintf("repo%d", i+1), s, nil))
	}
	a, err := archive.New(o)
	require.NoError(t, err)
	return a
}

func outcomes(r archive.Result) (all []archive.Outcome) {
	for _, o := range r.Repos {
		all = append(all, o.Outcome)
	}
	return all
}

// get fetches a file into an empty data directory of the same cluster.
func get(t *testing.T, a *archive.Archive, name string) ([]byte, string, error) {
	t.Helper()
	n := newNode(t, cluster, pg.StateArchiveRecovery)
	dest := filepath.Join(n.dir, "pg_wal", "RECOVERYXLOG")
	from, err := a.Get(ctx, name, dest)
	files, dirErr := os.ReadDir(filepath.Dir(dest))
	require.NoError(t, dirErr)
	if err != nil {
		require.Empty(t, files, "nothing is left of a get that failed")
		return nil, from, err
	}
	require.Len(t, files, 1)
	b, err := os.ReadFile(dest)
	require.NoError(t, err)
	return b, from, nil
}

// flip changes a byte of every WAL object.
func flip(t *testing.T, store object.Store, at func(size int64) int64) {
	t.Helper()
	require.NoError(t, store.List(ctx, "", object.ListOptions{}, func(i object.Info) error {
		if !strings.Contains(i.Key, "/wal/") {
			return nil
		}
		body, err := store.Get(ctx, i.Key, 0, -1)
		require.NoError(t, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(body)
		require.NoError(t, errors.Join(err, body.Close()))
		b.Bytes()[at(i.Size)] ^= 1
		_, err = store.Put(ctx, i.Key, &b, object.PutOptions{})
		return err
	}))
}

// onTimeline makes all pages of a segment those of another timeline.
func onTimeline(b []byte, t pg.Timeline) []byte {
	b = bytes.Clone(b)
	for at := 0; at < len(b); at += 8192 {
		binary.LittleEndian.PutUint32(b[at+4:], uint32(t))
	}
	return b
}
