package archive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestPushAndGet(t *testing.T) {
	s1, s2 := faulty.New(memory.New()), faulty.New(memory.New())
	a := newArchive(t, archive.Options{}, s1, s2)
	n := newNode(t, cluster, pg.StateProduction)
	name, b := segment()
	path := n.file(t, name, b)

	r, err := a.Push(ctx, path)
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Stored, archive.Stored}, outcomes(r))
	got, from, err := get(t, a, name)
	require.NoError(t, err)
	require.Equal(t, "repo1", from)
	require.True(t, bytes.Equal(b, got))

	head, err := repository(t, "repo1", s1, nil).Epoch(cluster).WALHead(ctx, repo.SegmentFile(pg.SegmentName(name)))
	require.NoError(t, err)
	require.True(t, head.Complete)
	require.Equal(t, 1, head.Commits)
	require.Equal(t, "here", head.RestorePoints[0].Name)
	require.Equal(t, pg.LSN(4<<20), head.ValidTo)

	// Another node, another process: one small read per repository.
	before := len(s1.Calls())
	r, err = newArchive(t, archive.Options{}, s1, s2).Push(ctx, newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, b))
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Present, archive.Present}, outcomes(r))
	require.Len(t, s1.Calls()[before:], 1)

	// The second file of the same process: no look at marker and epoch again.
	_, b = switched()
	name = string(pg.SegmentSize(1<<20).Name(2, 3))
	before = len(s1.Calls())
	_, err = a.Push(ctx, n.file(t, name, onTimeline(b, 2)))
	require.NoError(t, err)
	require.Len(t, s1.Calls()[before:], 2)

	_, _, err = get(t, a, "000000010000000000000009")
	require.ErrorIs(t, err, archive.ErrNotArchived)
}

// One file, repository by repository: what is learned of it serves them all.
func TestPushTo(t *testing.T) {
	dead := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail})
	a := newArchive(t, archive.Options{}, memory.New(), dead, memory.New())
	n := newNode(t, cluster, pg.StateArchiveRecovery)
	name, b := segment()
	_, part, end := unfinished(100)
	for _, c := range []struct {
		path string
		want repo.WALName
	}{
		{n.file(t, name, b), repo.SegmentFile(pg.SegmentName(name))},
		{newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, part), repo.PartialFile(pg.SegmentName(name), end)},
	} {
		f, err := a.Open(c.path)
		require.NoError(t, err)
		require.Equal(t, c.path, f.Path())
		for _, want := range []archive.Outcome{archive.Stored, archive.Present} {
			for _, i := range []int{0, 2} {
				o, err := a.PushTo(ctx, i, f)
				require.NoError(t, err)
				require.Equal(t, want, o)
			}
			o, err := a.PushTo(ctx, 1, f)
			var failed *archive.RepoError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "repo2", failed.Repo)
			require.Equal(t, archive.Failed, o)
		}
		require.Equal(t, c.want, f.Name())
		require.NoError(t, f.Close())
	}

	// A refusal is the file's own, not a repository's.
	b[500000] ^= 1
	f, err := a.Open(newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.NoError(t, err)
	defer f.Close()
	_, err = a.PushTo(ctx, 0, f)
	require.ErrorIs(t, err, archive.ErrRefused)
	require.False(t, errors.As(err, new(*archive.RepoError)))
}

func TestRacingPushes(t *testing.T) {
	store := memory.New()
	name, b := segment()
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for range 8 {
		a := newArchive(t, archive.Options{}, store)
		path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
		wg.Go(func() {
			r, err := a.Push(ctx, path)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || r.Repos[0].Outcome == archive.Failed {
				t.Errorf("%v %v", r, err)
			}
			if r.Repos[0].Outcome == archive.Stored {
				stored++
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, stored)
}

func label(segment string, ended bool) string {
	l := "START WAL LOCATION: 0/300028 (file " + segment + ")\n"
	if ended {
		l += "STOP WAL LOCATION: 0/300138 (file " + segment + ")\n"
	}
	l += "CHECKPOINT LOCATION: 0/300060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-22 12:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n"
	if ended {
		l += "STOP TIME: 2026-11-22 12:00:01 UTC\nSTOP TIMELINE: 1\n"
	}
	return l
}

func TestSmallFiles(t *testing.T) {
	store := memory.New()
	a := newArchive(t, archive.Options{}, store)
	n := newNode(t, cluster, pg.StateProduction)
	history := "1\t0/3000000\tno recovery target specified\n"
	backup := "000000010000000000000003.00000028.backup"
	for name, text := range map[string]string{"00000002.history": history, backup: label(backup[:24], true)} {
		for _, want := range []archive.Outcome{archive.Stored, archive.Present} {
			r, err := a.Push(ctx, n.file(t, name, []byte(text)))
			require.NoError(t, err)
			require.Equal(t, want, r.Repos[0].Outcome)
		}
		got, _, err := get(t, a, name)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
	// A clone chose the same timeline.
	r, err := a.Push(ctx, n.file(t, "00000002.history", []byte("1\t0/2000000\tbefore 2026-11-22\n")))
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Conflict}, outcomes(r))
	got, _, err := get(t, a, "00000002.history")
	require.NoError(t, err)
	require.Equal(t, history, string(got))

	// By hand, from a directory that is no data directory.
	outside := filepath.Join(t.TempDir(), "00000003.history")
	require.NoError(t, os.WriteFile(outside, []byte("2\t0/4000000\tx\n"), 0o600))
	_, err = a.Push(ctx, outside)
	require.NoError(t, err)
	_, err = newArchive(t, archive.Options{}, memory.New()).Push(ctx, outside)
	require.ErrorIs(t, err, archive.ErrRefused)
}

func TestSegmentOutsideDataDirectory(t *testing.T) {
	store := memory.New()
	name, b := segment()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, b, 0o600))
	a := newArchive(t, archive.Options{}, store)
	_, err := a.Push(ctx, path)
	require.NoError(t, err)
	dest := filepath.Join(t.TempDir(), "x")
	_, err = a.Get(ctx, name, dest)
	require.NoError(t, err)
	require.FileExists(t, dest)

	_, err = newArchive(t, archive.Options{SystemID: cluster + 1}, store).Push(ctx, path)
	require.ErrorIs(t, err, archive.ErrRefused)
	_, err = newArchive(t, archive.Options{SystemID: cluster + 1}, store).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, b))
	require.ErrorIs(t, err, archive.ErrRefused)
}

func TestRequire(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	dead := func() object.Store { return faulty.New(memory.New(), faulty.Rule{Fault: faulty.Fail}) }
	hangs := func() object.Store {
		return faulty.New(memory.New(), faulty.Rule{Fault: faulty.Delay, Delay: time.Hour})
	}

	r, err := newArchive(t, archive.Options{}, memory.New(), dead()).Push(ctx, path)
	require.ErrorIs(t, err, faulty.ErrFault)
	require.ErrorContains(t, err, "repo2")
	require.ErrorContains(t, err, "1 of 2 repositories have it, 2 must")
	require.Equal(t, []archive.Outcome{archive.Stored, archive.Failed}, outcomes(r))

	r, err = newArchive(t, archive.Options{Require: 1}, dead(), memory.New()).Push(ctx, path)
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Failed, archive.Stored}, outcomes(r))
	require.Error(t, r.Repos[0].Err)

	// One that does not answer gets a grace, and no more.
	began := time.Now()
	r, err = newArchive(t, archive.Options{Require: 2, Grace: 50 * time.Millisecond}, memory.New(), hangs(), memory.New()).Push(ctx, path)
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Stored, archive.Failed, archive.Stored}, outcomes(r))
	require.ErrorContains(t, r.Repos[1].Err, "no answer")
	require.Less(t, time.Since(began), 10*time.Second)

	_, err = archive.New(archive.Options{})
	require.Error(t, err)
	_, err = archive.New(archive.Options{Require: 2, Repos: []*repo.Repository{repository(t, "r", memory.New(), nil)}})
	require.Error(t, err)
}

func TestEncrypted(t *testing.T) {
	data, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	meta, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	keys := func(o repo.KeyOptions) *repo.Keys {
		k, err := repo.NewKeys(o)
		require.NoError(t, err)
		return k
	}
	store := memory.New()
	with := func(k *repo.Keys) *archive.Archive {
		a, err := archive.New(archive.Options{Repos: []*repo.Repository{repository(t, "repo1", store, k)}})
		require.NoError(t, err)
		return a
	}
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)

	node := keys(repo.KeyOptions{Recipients: data.Recipient().String(), MetadataIdentity: meta.String()})
	for _, want := range []archive.Outcome{archive.Stored, archive.Present} {
		r, err := with(node).Push(ctx, path)
		require.NoError(t, err)
		require.Equal(t, want, r.Repos[0].Outcome)
	}
	// A node cannot read the data back; that is no proof of absence.
	_, _, err = get(t, with(node), name)
	require.ErrorIs(t, err, repo.ErrNoIdentity)
	require.NotErrorIs(t, err, archive.ErrNotArchived)

	_, other := switched()
	for range 2 {
		r, err := with(node).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, other))
		require.NoError(t, err)
		require.Equal(t, []archive.Outcome{archive.Conflict}, outcomes(r))
	}

	owner := keys(repo.KeyOptions{Identity: data.String(), MetadataIdentity: meta.String()})
	got, _, err := get(t, with(owner), name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got))

	// Without any identity a second push cannot tell, and says so.
	blind := keys(repo.KeyOptions{Recipients: data.Recipient().String(), MetadataRecipients: meta.Recipient().String()})
	_, err = with(blind).Push(ctx, path)
	require.ErrorIs(t, err, repo.ErrNoIdentity)
}

func TestCancel(t *testing.T) {
	name, b := segment()
	path := newNode(t, cluster, pg.StateProduction).file(t, name, b)
	hangs := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Delay, Delay: time.Hour})
	stop := errors.New("stopped by signal")
	c, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	a := newArchive(t, archive.Options{}, hangs)
	_, err := a.Push(c, path)
	require.ErrorIs(t, err, stop)
	_, err = a.Get(c, name, filepath.Join(t.TempDir(), "x"))
	require.ErrorIs(t, err, stop)
	require.NotErrorIs(t, err, archive.ErrNotArchived)
}
