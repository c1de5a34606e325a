package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// A standby that follows the latest timeline is not given what the old primary
// wrote behind the point where the new one left it; everybody else is.
func TestFork(t *testing.T) {
	// Timeline 1 has the segments 2 to 4; timeline 2 leaves it in the third, or at
	// the end of it; timeline 3 leaves timeline 2 much later.
	with := func(t *testing.T, histories map[pg.Timeline]string) object.Store {
		n := newNode(t, cluster, pg.StateProduction)
		store := memory.New()
		a := newArchive(t, archive.Options{}, store)
		for no := pg.SegmentNo(2); no <= 4; no++ {
			s := waltest.New(cluster)
			s.First = no
			s.Fill(0)
			name, b := s.Segment(0)
			_, err := a.Push(ctx, n.file(t, string(name), b))
			require.NoError(t, err)
		}
		for line, text := range histories {
			_, err := a.Push(ctx, n.file(t, pg.HistoryName(line), []byte(text)))
			require.NoError(t, err)
		}
		return store
	}
	inside := map[pg.Timeline]string{2: "1\t0/380000\twhy\n"}
	later := map[pg.Timeline]string{2: "1\t0/380000\twhy\n", 3: "1\t0/380000\twhy\n2\t0/900000\twhy\n"}
	aside := map[pg.Timeline]string{2: "1\t0/380000\twhy\n", 3: "1\t0/480000\twhy\n"}
	border := map[pg.Timeline]string{2: "1\t0/400000\twhy\n"}

	for what, c := range map[string]struct {
		histories map[pg.Timeline]string
		setting   string
		kept      pg.Timeline // its history lies in pg_wal
		at        string      // MinRecovery of the standby
		signal    string
		refused   []pg.SegmentNo
	}{
		"no fork":             {},
		"inside":              {histories: inside, refused: []pg.SegmentNo{3}},
		"at the border":       {histories: border, refused: []pg.SegmentNo{4}},
		"several":             {histories: later, refused: []pg.SegmentNo{3}},
		"known to the server": {histories: later, kept: 3, refused: []pg.SegmentNo{3}},
		"a newer branch":      {histories: aside, refused: []pg.SegmentNo{4}},
		"latest, set":         {histories: inside, setting: "latest", refused: []pg.SegmentNo{3}},
		"stays":               {histories: inside, setting: "1"},
		"current":             {histories: inside, setting: "current"},
		"not known":           {histories: inside, setting: "latest'\ninclude 'nothing"},
		"before it":           {histories: inside, at: "0/37FFFF", refused: []pg.SegmentNo{3}},
		"past it":             {histories: inside, at: "0/380001"},
		"not a standby":       {histories: inside, signal: "recovery.signal"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			good := with(t, c.histories)
			standby := newNode(t, cluster, pg.StateArchiveRecovery)
			if c.at != "" {
				lsn, err := pg.ParseLSN(c.at)
				require.NoError(t, err)
				require.NoError(t, waltest.WriteControl(standby.dir, waltest.Recovered(waltest.Control(cluster, pg.StateArchiveRecovery, 1, 1<<20), 1, lsn)))
			}
			if c.signal == "" {
				c.signal = "standby.signal"
			}
			conf := "port = 1\n"
			if c.setting != "" {
				conf += fmt.Sprintf("recovery_target_timeline = '%s'\n", c.setting)
			}
			for name, text := range map[string]string{c.signal: "", "postgresql.conf": conf} {
				require.NoError(t, os.WriteFile(filepath.Join(standby.dir, name), []byte(text), 0o600))
			}
			if c.kept != 0 {
				standby.file(t, pg.HistoryName(c.kept), []byte(c.histories[c.kept]))
			}
			places := [][]object.Store{{good}, {memory.New(), good}}
			if what == "inside" { // it waits for the silent one, up to a second
				places = append(places, []object.Store{faulty.New(good, faulty.Rule{Fault: faulty.Delay, Delay: time.Hour}), good})
			}
			for _, stores := range places {
				o := archive.Options{StandbyPatience: 3 * time.Second, Hedge: 10 * time.Millisecond}
				var refused []pg.SegmentNo
				for no := pg.SegmentNo(2); no <= 4; no++ {
					name := string(pg.SegmentSize(1<<20).Name(1, no))
					_, err := newArchive(t, o, stores...).Get(ctx, name, filepath.Join(standby.dir, "pg_wal", "RECOVERYXLOG"))
					if err != nil {
						require.ErrorIs(t, err, archive.ErrNotArchived)
						require.ErrorContains(t, err, "leaves timeline 1")
						refused = append(refused, no)
					}
				}
				require.Equal(t, c.refused, refused)
			}
		})
	}
}
