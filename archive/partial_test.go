package archive_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func TestPartials(t *testing.T) {
	store := memory.New()
	a := newArchive(t, archive.Options{}, store)
	name, short, shortEnd := unfinished(100)
	_, long, longEnd := unfinished(300)

	// A standby hands over its last segment under the full name.
	r, err := a.Push(ctx, newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, short))
	require.NoError(t, err)
	require.Equal(t, repo.PartialFile(pg.SegmentName(name), shortEnd), r.Name)
	// Another has the same, with leftovers behind it.
	leftovers := append([]byte(nil), short...)
	for i := int(shortEnd) % (1 << 20); i < len(leftovers); i++ {
		leftovers[i] = 0x77
	}
	r, err = a.Push(ctx, newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, leftovers))
	require.NoError(t, err)
	require.Equal(t, []archive.Outcome{archive.Present}, outcomes(r))
	// A promoted one renames it.
	r, err = a.Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name+".partial", long))
	require.NoError(t, err)
	require.Equal(t, repo.PartialFile(pg.SegmentName(name), longEnd), r.Name)

	_, _, err = get(t, a, name)
	require.ErrorIs(t, err, archive.ErrNotArchived, "recovery is never given a partial segment")
	got, _, err := get(t, a, name+".partial")
	require.NoError(t, err)
	require.True(t, bytes.Equal(long, got), "the longest, zero-filled")
	_, _, err = get(t, a, "0000000100000000000000AA.partial")
	require.ErrorIs(t, err, archive.ErrNotArchived)

	// The whole one has a key of its own.
	_, whole := segment()
	r, err = a.Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name, whole))
	require.NoError(t, err)
	require.Equal(t, pg.FileSegment, r.Name.Kind)
}

// replacing is a store where a streaming agent replaces the partial segment
// between the listing and the get of a reader.
type replacing struct {
	object.Store
	replace func()
	times   int
}

func (s *replacing) List(ctx context.Context, prefix string, o object.ListOptions, fn func(object.Info) error) error {
	err := s.Store.List(ctx, prefix, o, fn)
	if strings.Contains(prefix, "partial") && s.times > 0 {
		s.times--
		s.replace()
	}
	return err
}

func TestPartialIsReplaced(t *testing.T) {
	name, short, shortEnd := unfinished(100)
	_, long, _ := unfinished(300)
	for times, want := range map[int]bool{1: true, 3: false} {
		below := memory.New()
		store := &replacing{Store: below}
		a := newArchive(t, archive.Options{}, store)
		e := repository(t, "repo1", below, nil).Epoch(cluster)
		_, err := a.Push(ctx, newNode(t, cluster, pg.StateArchiveRecovery).file(t, name, short))
		require.NoError(t, err)
		store.replace = func() {
			require.NoError(t, e.DeletePartial(ctx, repo.PartialFile(pg.SegmentName(name), shortEnd)))
			if want {
				_, err := newArchive(t, archive.Options{}, below).Push(ctx, newNode(t, cluster, pg.StateProduction).file(t, name+".partial", long))
				require.NoError(t, err)
			}
		}
		store.times = times
		got, _, err := get(t, a, name+".partial")
		if !want { // gone altogether
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.True(t, bytes.Equal(long, got))
	}
	require.Error(t, repository(t, "repo1", memory.New(), nil).Epoch(cluster).DeletePartial(ctx, repo.SegmentFile(pg.SegmentName(name))))
}
