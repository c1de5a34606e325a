package restore

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
)

// headsOf knows a commit at the start of every segment.
type headsOf struct{ at time.Time }

func (h headsOf) SegmentHead(_ context.Context, n pg.SegmentName) (repo.WALHead, error) {
	return repo.WALHead{Name: string(n), LastCommit: &h.at, FirstCommit: &h.at}, nil
}

const mib = 1 << 20

// failedOver is a cluster of which timeline 2 left timeline 1 inside segment 7.
func failedOver(at time.Time) repo.Holdings {
	return repo.Holdings{
		SegmentSize: mib,
		Backups:     []repo.Summary{{Label: "20261122-010000F", Timeline: 1, StartLSN: 2 * mib, StopLSN: 3 * mib, Stop: at.Add(-time.Hour)}},
		Runs: map[pg.Timeline][]repo.Run{
			1: {{Timeline: 1, From: 2 * mib, To: 7 * mib, Segments: 5}},
			2: {{Timeline: 2, From: 7 * mib, To: 9 * mib, Segments: 2}},
		},
		Histories: map[pg.Timeline]pg.History{2: {Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, End: 7*mib + 4000}}}},
	}
}

// Timeline 1 died in segment 7, of which a partial one is there; timeline 2
// left it before its end.
func TestChoosePartial(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	h := failedOver(at)
	h.Partials = []repo.Partial{{Segment: "000000010000000000000007", ValidTo: 7*mib + 4000}, {Segment: "000000010000000000000007", ValidTo: 7*mib + 9000}}
	choose := func(use bool, target Target) (*Plan, error) {
		return Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: headsOf{at}}}, Request{Target: target, UsePartial: use})
	}
	dead := Target{Timeline: TimelineNumber(1)}
	p, err := choose(true, dead)
	require.NoError(t, err)
	require.Equal(t, &h.Partials[1], p.Partial, "the longest")
	require.Equal(t, pg.LSN(7*mib+9000), p.Stop.LSN)
	require.Equal(t, pg.SegmentName("000000010000000000000007"), p.Stop.Segment)
	require.Equal(t, 5, p.Segments())
	var text bytes.Buffer
	require.NoError(t, p.WriteText(&text, time.UTC))
	require.Contains(t, text.String(), "partial segment 000000010000000000000007, valid to 0/702328")

	p, err = choose(false, dead)
	require.NoError(t, err)
	require.Nil(t, p.Partial)
	require.Contains(t, p.Warnings[0], "--use-partial")

	dead.Kind, dead.LSN = TargetLSN, 7*mib+5000
	_, err = choose(false, dead)
	require.ErrorAs(t, err, new(*UnreachableError))
	p, err = choose(true, dead)
	require.NoError(t, err)
	require.Equal(t, dead.LSN, p.Stop.LSN)
	dead.LSN = 7*mib + 9000
	_, err = choose(true, dead)
	require.ErrorAs(t, err, new(*UnreachableError), "its records end there")

	// On the way to timeline 2 the segment is read from timeline 2.
	p, err = choose(true, Target{})
	require.NoError(t, err)
	require.Nil(t, p.Partial)

	// The window of the dead timeline is shown for what the partial adds, and
	// not if that is all on timeline 2 too.
	ws, err := h.Windows(t.Context(), repo.NewHeadCache(headsOf{at}))
	require.NoError(t, err)
	require.Len(t, ws, 2)
	require.Equal(t, pg.LSN(7*mib+9000), ws[0].Partial.ValidTo)
	h.Partials = h.Partials[:1]
	ws, err = h.Windows(t.Context(), repo.NewHeadCache(headsOf{at}))
	require.NoError(t, err)
	require.Len(t, ws, 1)
	require.Nil(t, ws[0].Partial)

	// Behind a gap it helps nobody.
	h.Partials = []repo.Partial{{Segment: "000000010000000000000005", ValidTo: 5*mib + 9000}}
	h.Runs = map[pg.Timeline][]repo.Run{1: {{Timeline: 1, From: 2 * mib, To: 5 * mib, Segments: 3}, {Timeline: 1, From: 6 * mib, To: 7 * mib, Segments: 1}}}
	p, err = choose(true, Target{Timeline: TimelineNumber(1)})
	require.NoError(t, err)
	require.Nil(t, p.Partial)
}

// The partial segment lies in pg_wal, in full length, when the server starts;
// without it there is no directory that a server starts in.
func TestRunPartial(t *testing.T) {
	s := newSynthetic(t, nil)
	sum := s.backup(syntheticContent(rand.New(rand.NewPCG(5, 5))), repo.Full, 50_000, nil)
	const name = pg.SegmentName("000000010000000000000002")
	records := []byte("the last bytes of a dead timeline")
	digest := wal.DigestOf(records)
	validTo := pg.LSN(32<<20 + len(records))
	require.NoError(t, s.epoch.PutWAL(t.Context(), repo.WALHead{
		Kind: repo.WALKind(pg.FilePartial), Name: string(name), SystemID: syntheticID, Timeline: 1, SegmentSize: 16 << 20, PGMajor: 15,
		XXH3: digest.String(), Length: int64(len(records)), Start: 32 << 20, ValidTo: validTo,
	}, bytes.NewReader(records)))
	plan := s.plan(sum)
	plan.Partial = &repo.Partial{Segment: name, ValidTo: validTo}
	dir := filepath.Join(t.TempDir(), "data")
	_, err := Run(t.Context(), plan, options(dir))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "pg_wal", string(name)))
	require.NoError(t, err)
	require.Len(t, got, 16<<20)
	require.Equal(t, records, bytes.TrimRight(got, "\x00"))

	// The same where pg_wal is elsewhere; and what it has of a timeline that was
	// left in it, under that one's name.
	plan.Stop.Segment, plan.Left = name, []Left{{"000000090000000000000002", 32<<20 + 4}}
	dir = filepath.Join(t.TempDir(), "data")
	o := options(dir)
	elsewhere := filepath.Join(t.TempDir(), "wal")
	o.Links = map[string]string{"pg_wal": elsewhere}
	_, err = Run(t.Context(), plan, o)
	require.NoError(t, err)
	for file, want := range map[pg.SegmentName][]byte{name: records, plan.Left[0].Segment: records[:4]} {
		got, err := os.ReadFile(filepath.Join(elsewhere, string(file)))
		require.NoError(t, err)
		require.Len(t, got, 16<<20)
		require.Equal(t, want, bytes.TrimRight(got, "\x00"))
	}
	require.FileExists(t, filepath.Join(elsewhere, "archive_status", "000000090000000000000002.done"))
	require.NoFileExists(t, filepath.Join(elsewhere, "archive_status", string(name)+".done"))
	plan.Left = nil

	// Another repository gives what the plan's one cannot give any more.
	other := openAs(t, "repo2", copyStore(t, s.store))
	for _, k := range keysWith(t, s.store, string(name)) {
		spoil(t, s.store, k)
	}
	plan.Repository, plan.epoch = "repo1", s.reopen(s.store)
	_, err = Run(t.Context(), plan, options(filepath.Join(t.TempDir(), "data")))
	require.ErrorIs(t, err, repo.ErrIntegrity)
	dir = filepath.Join(t.TempDir(), "data")
	o = options(dir)
	o.Archives = []*repo.Repository{other}
	_, err = Run(t.Context(), plan, o)
	require.NoError(t, err)
	got, err = os.ReadFile(filepath.Join(dir, "pg_wal", string(name)))
	require.NoError(t, err)
	require.Len(t, got, 16<<20)
	require.Equal(t, records, bytes.TrimRight(got, "\x00"))

	plan.Partial.ValidTo++ // gone
	dir = filepath.Join(t.TempDir(), "data")
	_, err = Run(t.Context(), plan, options(dir))
	require.ErrorIs(t, err, repo.ErrNotFound)
	require.NoFileExists(t, filepath.Join(dir, controlFile))
}

// Timeline 1 was left in segment 7, which is read from timeline 2: a recovery
// that may end before that gets the segment under its old name too.
func TestChooseLeft(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	h := failedOver(at)
	left := []Left{{"000000010000000000000007", 7*mib + 4000}}
	for _, c := range []struct {
		lsn  pg.LSN
		stop pg.SegmentName
		want []Left
	}{
		{6*mib + 5, "000000010000000000000006", nil},
		{7*mib + 3000, "000000020000000000000007", left},
		{7*mib + 4000, "000000020000000000000007", left},
		{7*mib + 5000, "000000020000000000000007", nil},
		{8*mib + 5000, "000000020000000000000008", nil},
	} {
		p, err := Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: headsOf{at}}}, Request{Target: Target{Kind: TargetLSN, LSN: c.lsn}})
		require.NoError(t, err, c.lsn)
		require.Equal(t, c.stop, p.Stop.Segment)
		require.Equal(t, c.want, p.Left, c.lsn)
	}
	// Left on a boundary, the segment has its own name; and a backup that ends
	// later never was on the old timeline.
	h.Histories[2].Entries[0].End = 7 * mib
	p, err := Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: headsOf{at}}}, Request{Target: Target{Kind: TargetLSN, LSN: 7 * mib}})
	require.NoError(t, err)
	require.Empty(t, p.Left)
	h.Histories[2].Entries[0].End = 7*mib + 4000
	h.Backups[0].Timeline, h.Backups[0].StopLSN = 2, 7*mib+4500
	p, err = Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: headsOf{at}}}, Request{Target: Target{Kind: TargetImmediate}})
	require.NoError(t, err)
	require.Empty(t, p.Left)
}
