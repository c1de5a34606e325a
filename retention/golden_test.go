package retention

import (
	"bytes"
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

var update = flag.Bool("update", false, "write the golden plans and docs/retention.md again")

// schedule is a repository after some days: a full backup every so many days,
// differentials on the days between, incrementals at noon; ten segments a day.
func schedule(days, every int, differential, incremental bool) State {
	h := repo.Holdings{SystemID: 7001, SegmentSize: testSize, Runs: map[pg.Timeline][]repo.Run{}, Histories: map[pg.Timeline]pg.History{}}
	var full, last repo.Label
	take := func(t repo.BackupType, parent repo.Label, start time.Time, at pg.SegmentNo, size int64) repo.Label {
		label, _ := repo.NewLabel(t, parent, start)
		s := repo.Summary{
			Label: label, Type: t, Start: start, Stop: start.Add(30 * time.Minute), SystemID: 7001, Timeline: 1, SegmentSize: testSize,
			StartLSN: testSize.Start(at) + 0x28, StopLSN: testSize.Start(at) + 0x8000, StoredBytes: size,
		}
		if t != repo.Full {
			s.Parent, s.References = parent, []repo.Label{parent}
		}
		h.Backups = append(h.Backups, s)
		return label
	}
	begin := testTime.AddDate(0, 0, -days+1)
	for day := range days {
		start, at := begin.AddDate(0, 0, day), pg.SegmentNo(1+10*day)
		switch {
		case day%every == 0:
			full = take(repo.Full, "", start, at, 40<<30)
			last = full
		case differential:
			last = take(repo.Differential, full, start, at, 3<<30)
		}
		if incremental {
			last = take(repo.Incremental, last, start.Add(11*time.Hour), at+5, 400<<20)
		}
	}
	h.Runs[1] = []repo.Run{{Timeline: 1, From: testSize.Start(1), To: testSize.Start(pg.SegmentNo(10*days + 1)), Segments: 10 * days}}
	return State{Epochs: []EpochState{{Holdings: h}}}
}

// goldenPlans are shown in docs/retention.md.
var goldenPlans = []struct {
	name   string
	state  func() State
	policy Policy
	remove []repo.Label
}{
	{"count", func() State { return schedule(13, 3, true, false) }, Policy{Full: 3}, nil},
	{"time", func() State { return schedule(15, 3, false, false) }, Policy{Full: 7, FullByTime: true}, nil},
	{"differential", func() State { return schedule(8, 7, true, true) }, Policy{Full: 2, Differential: 3}, nil},
	{"wal", func() State { return schedule(12, 2, false, false) }, Policy{Full: 5, WAL: 2}, nil},
	{"periods", func() State { return schedule(150, 7, false, false) }, Policy{Full: 2, Keep: Periods{Weekly: 4, Monthly: 3, Yearly: 2}}, nil},
	{"pin", func() State {
		s := schedule(9, 2, true, false)
		until := testTime.AddDate(0, 1, 0)
		s.Epochs[0].Pins = []repo.Pin{{Label: s.Epochs[0].Holdings.Backups[1].Label, Until: &until, Reason: "before the upgrade"}}
		s.Uses = []repo.Use{{Label: s.Epochs[0].Holdings.Backups[4].Label, Holder: "pg-1, process 4711", What: "restore into /srv/clone"}}
		return s
	}, Policy{Full: 2}, nil},
	{"missing-wal", func() State {
		s := schedule(8, 2, false, false)
		h := &s.Epochs[0].Holdings
		all := h.Runs[1][0]
		at := testSize.Start(testSize.SegmentOf(h.Backups[2].StartLSN))
		h.Runs[1] = []repo.Run{
			{Timeline: 1, From: all.From, To: at, Segments: int((at - all.From) / pg.LSN(testSize))},
			{Timeline: 1, From: at + pg.LSN(testSize), To: all.To, Segments: int((all.To-at)/pg.LSN(testSize)) - 1},
		}
		return s
	}, Policy{Full: 2}, nil},
	{"damage", func() State {
		s := schedule(8, 2, false, false)
		e := &s.Epochs[0]
		e.Unreadable = []repo.Label{e.Holdings.Backups[0].Label}
		e.Holdings.Damaged = repo.ErrIntegrity
		e.Holdings.Backups = e.Holdings.Backups[1:]
		return s
	}, Policy{Full: 1}, nil},
	{"remains", func() State {
		s := schedule(4, 1, false, false)
		s.Epochs[0].Remains = []repo.Label{"20261120-120000F", "20261122-130000F"}
		s.Epochs[0].Partials = []repo.Partial{
			{Segment: testSize.Name(1, 5), ValidTo: testSize.Start(5) + 0x100},
			{Segment: testSize.Name(1, 41), ValidTo: testSize.Start(41) + 0x100},
			{Segment: testSize.Name(1, 41), ValidTo: testSize.Start(41) + 0x200},
		}
		return s
	}, Policy{Full: 2}, nil},
	{"remove", func() State { return schedule(6, 3, true, false) }, Policy{Full: 2}, []repo.Label{"20261117-010000F"}},
}

func TestGoldenPlans(t *testing.T) {
	page := filepath.Join("..", "docs", "retention.md")
	doc, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, g := range goldenPlans {
		t.Run(g.name, func(t *testing.T) {
			p, err := MakePlan(g.state(), Request{Policy: g.policy, At: testTime.Add(12 * time.Hour), Remove: g.remove})
			require.NoError(t, err)
			var b bytes.Buffer
			require.NoError(t, p.Print(&b, time.UTC))
			golden := filepath.Join("testdata", g.name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
				doc = replaceExample(doc, g.name, b.String())
				return
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), b.String())
			require.Equal(t, string(doc), string(replaceExample(doc, g.name, b.String())), "docs/retention.md is not in step: go test ./retention -update")
		})
	}
	if *update {
		require.NoError(t, os.WriteFile(page, doc, 0o644))
	}
}

// replaceExample puts a plan into its block of the page, if it has one.
func replaceExample(doc []byte, name, text string) []byte {
	begin := "<!-- plan " + name + " -->\n```\n"
	before, rest, ok := strings.Cut(string(doc), begin)
	if !ok {
		return doc
	}
	_, behind, _ := strings.Cut(rest, "```\n")
	return []byte(before + begin + text + "```\n" + behind)
}
