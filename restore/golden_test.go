package restore

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

var update = flag.Bool("update", false, "write the golden files again")

// golden compares with testdata/<name>.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, got, 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run the test with -update")
	require.Equal(t, string(want), string(got), name)
}

// story is a cluster with a failover and a clone that was let into the
// archive: timeline 1 until 0/640000, from there timeline 2; timeline 3 left 1
// at 0/480000 when somebody restored. One transaction per record, one second
// apart.
func story() *model {
	m := &model{
		size: modelSize, records: map[pg.Timeline][]record{}, missing: map[pg.SegmentName]bool{},
		firstSeg:  map[pg.Timeline]pg.SegmentNo{1: 1, 2: 6, 3: 4},
		lastSeg:   map[pg.Timeline]pg.SegmentNo{1: 7, 2: 9, 3: 5},
		histories: map[pg.Timeline]pg.History{},
	}
	m.histories[2] = pg.History{Timeline: 2, Entries: []pg.HistoryEntry{{Timeline: 1, End: 0x640000}}}
	m.histories[3] = pg.History{Timeline: 3, Entries: []pg.HistoryEntry{{Timeline: 1, End: 0x480000}}}
	write := func(t pg.Timeline, from, to pg.LSN, at time.Time, xid uint32) {
		for ; from < to; from += recordSize {
			r := record{at: from, end: from + recordSize, commit: at, xid: xid}
			if from == 0x5f0000 {
				r.point, r.xid = "before_drop", 0
			}
			m.records[t] = append(m.records[t], r)
			at, xid = at.Add(time.Second), xid+1
		}
	}
	write(1, 0x100000, 0x800000, epoch0, 700)
	write(2, 0x640000, 0xa00000, epoch0.Add(time.Hour), 900)
	write(3, 0x480000, 0x600000, epoch0.Add(2*time.Hour), 1000)
	for i, at := range []pg.LSN{0x140000, 0x540000} {
		b := repo.Summary{
			Label: repo.Label([]string{"20261122-120000F", "20261122-120106F"}[i]), Type: repo.Full, Timeline: 1,
			StartLSN: at, StopLSN: at + 2*recordSize, PGVersion: 150004, Bytes: 5 << 30, Files: 1234, PageErrors: int64(i * 3),
		}
		b.Start = epoch0.Add(time.Duration(at-0x100000) / recordSize * time.Second)
		b.Stop = b.Start.Add(2500 * time.Millisecond)
		m.backups = append(m.backups, b)
	}
	return m
}

func TestGoldenPlans(t *testing.T) {
	hour := epoch0.Add(time.Hour)
	for _, test := range []struct {
		name string
		req  Request
		edit func(*model)
	}{
		{"end", Request{}, nil},
		{"end-on-two", Request{Target: Target{Timeline: TimelineNumber(2)}}, nil},
		{"end-of-the-first-backup", Request{Backup: "20261122-120000F", Target: Target{Timeline: CurrentTimeline()}}, nil},
		{"end-with-gap", Request{Target: Target{Timeline: TimelineNumber(2)}}, func(m *model) { m.missing["000000020000000000000008"] = true }},
		{"no-history", Request{Target: Target{Timeline: CurrentTimeline()}}, func(m *model) {
			m.histories = map[pg.Timeline]pg.History{}
			for i := range m.backups {
				m.backups[i].Timeline = 2
			}
			m.firstSeg[2], m.records[2] = 1, append(m.records[1][:len(m.records[1]):len(m.records[1])], m.records[2]...)
		}},
		{"immediate", Request{Target: Target{Kind: TargetImmediate, Action: Pause}}, nil},
		{"time", Request{Target: Target{Kind: TargetTime, Time: epoch0.Add(30 * time.Second)}}, nil},
		{"time-after-the-failover", Request{Target: Target{Kind: TargetTime, Time: hour.Add(10 * time.Second), Exclusive: true, Timeline: TimelineNumber(2)}}, nil},
		{"time-on-several-timelines", Request{Target: Target{Kind: TargetTime, Time: epoch0.Add(72 * time.Second)}}, nil},
		{"lsn", Request{Target: Target{Kind: TargetLSN, LSN: 0x6a0000, Timeline: TimelineNumber(2), Action: Shutdown}}, nil},
		{"name", Request{Target: Target{Kind: TargetName, Name: "before_drop", Timeline: TimelineNumber(1)}}, nil},
		{"xid", Request{Target: Target{Kind: TargetXID, XID: 905, Timeline: TimelineNumber(2)}}, nil},

		{"unreachable-time-late", Request{Target: Target{Kind: TargetTime, Time: hour.Add(24 * time.Hour)}}, nil},
		{"unreachable-time-early", Request{Target: Target{Kind: TargetTime, Time: epoch0}}, nil},
		{"unreachable-time-in-gap", Request{Target: Target{Kind: TargetTime, Time: hour.Add(40 * time.Second), Timeline: TimelineNumber(2)}}, func(m *model) { m.missing["000000020000000000000008"] = true }},
		{"unreachable-lsn", Request{Target: Target{Kind: TargetLSN, LSN: 0xb00000, Timeline: TimelineNumber(2)}}, nil},
		{"unreachable-name", Request{Target: Target{Kind: TargetName, Name: "never"}}, nil},
		{"unreachable-xid", Request{Target: Target{Kind: TargetXID, XID: 5000}}, nil},
		{"unreachable-timeline", Request{Target: Target{Timeline: TimelineNumber(7)}}, nil},
		{"unreachable-branch", Request{Backup: "20261122-120106F", Target: Target{Timeline: TimelineNumber(3)}}, nil},
		{"unreachable-own-wal", Request{Target: Target{Timeline: TimelineNumber(1)}}, func(m *model) {
			m.missing["000000010000000000000001"], m.missing["000000010000000000000005"] = true, true
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := story()
			if test.edit != nil {
				test.edit(m)
			}
			plan, err := Choose(t.Context(), []Source{{Repository: "repo1", Holdings: m.holdings(), Heads: m}}, test.req)
			var out bytes.Buffer
			var asJSON any = plan
			var u *UnreachableError
			if errors.As(err, &u) {
				require.True(t, strings.HasPrefix(test.name, "unreachable"), err)
				out.WriteString(u.Text(time.UTC) + "\n")
				asJSON = u
			} else {
				require.NoError(t, err)
				require.False(t, strings.HasPrefix(test.name, "unreachable"))
				require.True(t, plan.Target.Kind == TargetXID || m.serve(plan.Backup, plan.Timeline, plan.Target))
				require.NoError(t, plan.WriteText(&out, time.FixedZone("", 3600)))
				out.WriteString("\n" + plan.Outlook(time.UTC) + "\n")
			}
			out.WriteString("\n")
			enc := json.NewEncoder(&out)
			enc.SetIndent("", "  ")
			require.NoError(t, enc.Encode(asJSON))
			golden(t, test.name+".txt", out.Bytes())
		})
	}
}

func TestChooseRepository(t *testing.T) {
	whole, holed, empty := story(), story(), story()
	holed.missing["000000010000000000000005"] = true
	empty.backups = nil
	sources := []Source{
		{Repository: "repo1", Holdings: empty.holdings(), Heads: empty},
		{Repository: "repo2", Holdings: holed.holdings(), Heads: holed},
		{Repository: "repo3", Holdings: whole.holdings(), Heads: whole},
	}
	req := Request{Target: Target{Kind: TargetLSN, LSN: 0x700000, Timeline: TimelineNumber(2)}}
	plan, err := Choose(t.Context(), sources, req)
	require.NoError(t, err)
	require.Equal(t, "repo3", plan.Repository)
	_, err = Choose(t.Context(), sources[:2], req)
	require.ErrorIs(t, err, ErrUnreachable)
	_, err = Choose(t.Context(), sources[:1], req)
	require.ErrorIs(t, err, ErrNoBackup)
	req.Backup = "20200101-000000F"
	_, err = Choose(t.Context(), sources, req)
	require.ErrorIs(t, err, ErrNoBackup)
	require.ErrorContains(t, err, "20200101-000000F")
	_, err = Choose(t.Context(), sources, Request{Target: Target{Kind: TargetImmediate, Exclusive: true}})
	require.ErrorIs(t, err, ErrBadRequest)
}

// TestFewHeadsAreRead holds the search for a time to a number of reads that a
// store with a round trip of 50 ms can bear.
func TestFewHeadsAreRead(t *testing.T) {
	m := story()
	m.lastSeg[1] = 5000
	m.backups = m.backups[:1]
	m.histories = map[pg.Timeline]pg.History{}
	delete(m.firstSeg, 2)
	delete(m.firstSeg, 3)
	for at, i := pg.LSN(0x800000), 1; at < m.size.Start(5000); at, i = at+modelSizeLSN, i+1 {
		m.records[1] = append(m.records[1], record{at: at, end: at + recordSize, commit: epoch0.Add(time.Duration(i) * time.Minute * 10), xid: uint32(2000 + i)})
	}
	h := m.holdings()
	m.reads = 0
	_, err := Choose(t.Context(), []Source{{Repository: "repo1", Holdings: h, Heads: m}}, Request{Target: Target{Kind: TargetTime, Time: epoch0.Add(200 * time.Hour)}})
	require.NoError(t, err)
	require.Less(t, m.reads, 40)
}

const modelSizeLSN = pg.LSN(modelSize)
