package restore

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

func settingsPlan(g Target) *Plan {
	return &Plan{Backup: repo.Summary{Label: "20261122-010000F"}, Target: g, Timeline: 3, TimelineSetting: "3"}
}

func TestRecoverySettings(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 30, 0, 500_000, time.FixedZone("", -5*3600))
	for _, test := range []struct {
		target Target
		want   []string
		not    []string
	}{
		{Target{Kind: TargetEnd, Action: Promote}, []string{"recovery_target_time = ''", "recovery_target = ''"}, []string{"recovery_target_action"}},
		{Target{Kind: TargetImmediate, Action: Pause}, []string{"recovery_target = 'immediate'", "recovery_target_action = 'pause'"}, nil},
		{Target{Kind: TargetTime, Time: at, Action: Promote, Exclusive: true}, []string{"recovery_target_time = '2026-11-22 19:30:00.0005+00'", "recovery_target_inclusive = 'false'"}, nil},
		{Target{Kind: TargetLSN, LSN: 0x16B374D848, Action: Shutdown}, []string{"recovery_target_lsn = '16/B374D848'", "recovery_target_action = 'shutdown'"}, nil},
		{Target{Kind: TargetXID, XID: 4000000000, Action: Promote}, []string{"recovery_target_xid = '4000000000'"}, nil},
		{Target{Kind: TargetName, Name: `it's \ here`, Action: Promote}, []string{`recovery_target_name = 'it''s \\ here'`}, nil},
	} {
		o := options("/x")
		conf := string(editConf(nil, "L", recoverySettings(settingsPlan(test.target), &o)))
		lines := strings.Split(conf, "\n")
		for _, w := range append(test.want, "recovery_target_timeline = '3'", "archive_mode = 'off'", `restore_command = '/usr/bin/walkeep-wal get %f "%p"'`) {
			require.Contains(t, lines, w)
		}
		for _, n := range test.not {
			require.NotContains(t, conf, n)
		}
		// Each setting once, and the target after the ones it replaces.
		seen := map[string]bool{}
		for _, l := range lines {
			name := settingOf([]byte(l))
			require.False(t, seen[name] && name != "", l)
			seen[name] = true
		}
		if i := strings.Index(conf, test.want[0]); test.target.Kind != TargetEnd {
			require.Greater(t, i, strings.LastIndex(conf, " = ''"))
		}
	}
	o := options("/x")
	o.KeepArchiveMode = true
	o.Settings = []Setting{{"work_mem", "5MB"}}
	conf := string(editConf(nil, "L", recoverySettings(settingsPlan(Target{Kind: TargetEnd}), &o)))
	require.NotContains(t, conf, "archive_mode")
	require.Contains(t, conf, "work_mem = '5MB'\n")
}

func TestEditConf(t *testing.T) {
	old := "# Do not edit\r\nWork_Mem = '1MB'\n  recovery_target_time='x'\nprimary_conninfo = 'host=a'\nRESTORE_COMMAND 'cp'\narchive_cleanup_command = 'rm'\nno newline at the end"
	got := string(editConf([]byte(old), "L", []Setting{{"work_mem", "2MB"}, {"restore_command", "c"}}))
	require.Equal(t, `# Do not edit
# before the restore: Work_Mem = '1MB'
# before the restore:   recovery_target_time='x'
primary_conninfo = 'host=a'
# before the restore: RESTORE_COMMAND 'cp'
# before the restore: archive_cleanup_command = 'rm'
no newline at the end

# Written by walkeep restore from backup L.
work_mem = '2MB'
restore_command = 'c'
`, got)
}

func TestRestoreCommand(t *testing.T) {
	require.Equal(t, `/usr/bin/walkeep-wal --config /etc/walkeep/walkeep.yaml get %f "%p"`, RestoreCommand("/usr/bin/walkeep-wal", "--config", "/etc/walkeep/walkeep.yaml"))
	// The server replaces %-sequences, a shell reads the rest.
	odd := `/a b/it's 100%/$x "y" \`
	command := RestoreCommand("printf", `%s\n`, odd)
	command = strings.NewReplacer("%%", "%", "%f", "000000010000000000000001", "%p", "pg_wal/RECOVERYXLOG").Replace(command)
	out, err := exec.Command("sh", "-c", command).Output()
	require.NoError(t, err)
	require.Equal(t, []string{odd, "get", "000000010000000000000001", "pg_wal/RECOVERYXLOG"}, strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"))
}

func TestParseSetting(t *testing.T) {
	s, err := ParseSetting("a.b_c = x=y ")
	require.NoError(t, err)
	require.Equal(t, Setting{"a.b_c", " x=y "}, s)
	for _, bad := range []string{"", "x", "=1", "a b=1", "a=1\n2", "1a=2", "a..b=1"} {
		_, err := ParseSetting(bad)
		require.Error(t, err, bad)
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	want := time.Date(2026, 11, 22, 14, 30, 5, 250_000_000, time.UTC)
	for _, s := range []string{
		"2026-11-22 14:30:05.25+00", "2026-11-22 14:30:05.25Z", "2026-11-22T14:30:05.25Z", "2026-11-22T14:30:05.250+00:00", "2026-11-22 14:30:05.25 UTC",
		"2026-11-22 09:30:05.25-05", "2026-11-22 20:00:05.25+05:30", "2026-11-22 20:00:05.25 +0530", "2026-11-22 16:30:05.25", " 2026-11-22T16:30:05.250000000 ",
		"2026-11-22t14:30:05.25z", "2026-11-22 14:30:05.25GMT",
	} {
		got, err := ParseTime(s, zone)
		require.NoError(t, err, s)
		require.True(t, want.Equal(got), "%s: %s", s, got)
	}
	for s, want := range map[string]time.Time{
		"2026-11-22":          time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC),
		"2026-11-22 14:30":    time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC),
		"2026-11-22 14:30+00": time.Date(2026, 11, 22, 14, 30, 0, 0, time.UTC),
	} {
		got, err := ParseTime(s, zone)
		require.NoError(t, err, s)
		require.True(t, want.Equal(got), "%s: %s", s, got)
	}
	for _, bad := range []string{"", "now", "2026-13-01", "2026-11-22 25:00", "2026-11-22 14:30 CET", "14:30"} {
		_, err := ParseTime(bad, zone)
		require.Error(t, err, bad)
	}
}

func TestParseTimelineChoice(t *testing.T) {
	for _, s := range []string{"latest", "current", "1", "4294967295"} {
		c, err := ParseTimelineChoice(s)
		require.NoError(t, err)
		require.Equal(t, s, c.String())
	}
	for _, bad := range []string{"0", "-1", "newest", "4294967296", "0x2"} {
		_, err := ParseTimelineChoice(bad)
		require.Error(t, err, bad)
	}
	require.Equal(t, "7", TimelineNumber(pg.Timeline(7)).String())
}

// FuzzEditConf: whatever was in the file, our settings come last, once, and
// nothing of the old content stays in force that contradicts them.
func FuzzEditConf(f *testing.F) {
	f.Add([]byte("recovery_target='immediate'\nx=1"), "va'l\\ue")
	f.Fuzz(func(t *testing.T, old []byte, value string) {
		s := Setting{"restore_command", value}
		if s.check() != nil {
			return
		}
		got := editConf(old, "L", []Setting{s})
		require.True(t, bytes.HasSuffix(got, []byte(s.line())))
		n := 0
		for line := range bytes.Lines(got) {
			name := settingOf(line)
			require.False(t, obsolete[name] && name != "restore_command", "%q", line)
			if name == "restore_command" {
				n++
			}
		}
		require.Equal(t, 1, n)
	})
}

// FuzzParseTime: what it accepts comes back from what it means.
func FuzzParseTime(f *testing.F) {
	f.Add("2026-11-22 14:30:05.25+00")
	f.Fuzz(func(t *testing.T, s string) {
		at, err := ParseTime(s, time.UTC)
		if err != nil || at.Year() < 1 || at.Year() > 9999 {
			return
		}
		again, err := ParseTime(at.UTC().Format(time.RFC3339Nano), time.UTC)
		require.NoError(t, err)
		require.True(t, at.Equal(again))
	})
}

func TestStandbySettings(t *testing.T) {
	p := settingsPlan(Target{Kind: TargetEnd, Action: Promote})
	p.Standby = true
	o := options("/x")
	o.PrimaryConnInfo = "host=pg-1 user=replicator application_name='a b'"
	conf := string(editConf([]byte("primary_conninfo = 'host=old'\nprimary_slot_name = 'old'\n"), "L", recoverySettings(p, &o)))
	for _, line := range []string{
		"primary_conninfo = 'host=pg-1 user=replicator application_name=''a b'''", "primary_slot_name = ''", "recovery_target_timeline = 'latest'",
		`restore_command = '/usr/bin/walkeep-wal get %f "%p"'`, "# before the restore: primary_conninfo = 'host=old'",
	} {
		require.Contains(t, strings.Split(conf, "\n"), line)
	}
}
