package facts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
)

// examine reads one file of pg_wal under the name of a segment.
func examine(t *testing.T, path string, name string, opts wal.Options) (wal.Report, error) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	n, err := pg.ParseSegmentName(name)
	require.NoError(t, err)
	return wal.Examine(f, n, 0, opts)
}

func lsn(t *testing.T, s *postgres.Server, sql string) pg.LSN {
	t.Helper()
	v, err := pg.ParseLSN(s.MustText(t, sql))
	require.NoError(t, err)
	return v
}

// segments lists the files of pg_wal with a segment's name.
func segments(t *testing.T, dataDir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", strings.Repeat("[0-9A-F]", 24)))
	require.NoError(t, err)
	return files
}

func TestAgainstServers(t *testing.T) {
	for _, major := range postgres.Majors() {
		for _, size := range []pg.SegmentSize{1 << 20, 16 << 20} {
			t.Run(fmt.Sprintf("%d/%dMB", major, size>>20), func(t *testing.T) {
				env := postgres.New(t)
				s := env.Primary(t, postgres.Options{
					Major: major, Checksums: true, SegmentSize: size, NoFsync: true,
					Settings: map[string]string{"max_prepared_transactions": "7", "wal_keep_size": "2GB", "autovacuum": "off", "full_page_writes": "on"},
				})
				checkWAL(t, env, s, size)
				checkControl(t, env, s)
				checkPromotion(t, env, s)
				checkPages(t, s)
			})
		}
	}
}

// checkWAL makes WAL whose content is known, and compares.
func checkWAL(t *testing.T, env *postgres.Env, s *postgres.Server, size pg.SegmentSize) {
	ctx := context.Background()
	s.MustExec(t, "create table t (i int primary key, filler text)")
	before := size.Start(size.SegmentOf(lsn(t, s, "select pg_switch_wal()")-1) + 1)
	start := time.Now()
	conn, err := s.Connect(ctx)
	require.NoError(t, err)
	defer conn.Close(ctx)
	var xids []uint32
	for i := range 40 {
		tx, err := conn.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `insert into t select g, repeat(md5(g::text), 20) from generate_series($1::int, $2::int) g`, i*300, i*300+299)
		require.NoError(t, err)
		var xid uint32
		require.NoError(t, tx.QueryRow(ctx, `select (pg_current_xact_id()::text::bigint % 4294967296)::bigint::text::int8`).Scan(&xid))
		xids = append(xids, xid)
		if i%4 == 3 {
			require.NoError(t, tx.Rollback(ctx))
		} else {
			require.NoError(t, tx.Commit(ctx))
		}
	}
	// A prepared transaction that leaves every part in its record.
	s.MustExec(t, `begin; create table p (i int primary key, t text); savepoint a; insert into p values (1); savepoint b; insert into p values (2); prepare transaction 'x'`)
	prepared, err := strconv.Atoi(s.MustText(t, `select transaction from pg_prepared_xacts`))
	require.NoError(t, err)
	s.MustExec(t, `commit prepared 'x'`)
	s.MustExec(t, `begin; drop table p; prepare transaction 'y'`)
	dropped, err := strconv.Atoi(s.MustText(t, `select transaction from pg_prepared_xacts`))
	require.NoError(t, err)
	s.MustExec(t, `commit prepared 'y'`)
	s.MustExec(t, `begin; create table q as select 1 as i; prepare transaction 'z'`)
	s.MustExec(t, `rollback prepared 'z'`)
	// Records of more than a page, and for small segments of more than one segment.
	_, err = conn.Exec(ctx, `select pg_logical_emit_message(false, 'x', repeat('walkeep', 450000))`)
	require.NoError(t, err)
	var points []wal.RestorePoint
	for _, name := range []string{"before the change", "über"} {
		points = append(points, wal.RestorePoint{Name: name, LSN: lsn(t, s, fmt.Sprintf("select pg_create_restore_point('%s')", name))})
	}
	switched := lsn(t, s, "select pg_switch_wal()")
	id, err := s.SystemID(ctx)
	require.NoError(t, err)

	total := sumOf(t, s, size, id, before, switched)
	require.Equal(t, 30+2, total.commits)
	require.Equal(t, 30+2+10+1, total.ended)
	for i, p := range points {
		require.Equal(t, p.Name, total.points[i].Name)
		require.Equal(t, p.LSN, total.points[i].LSN)
		require.WithinDuration(t, time.Now(), total.points[i].Time, time.Minute)
	}
	require.WithinRange(t, total.first, start.Add(-time.Millisecond), total.last)
	require.WithinRange(t, total.last, total.first, time.Now())
	for _, xid := range append(xids, uint32(prepared), uint32(dropped)) {
		require.True(t, total.covers(xid), "%d", xid)
	}
	if s.Install.Path("pg_waldump") != "" {
		compareWaldump(t, env, s, before, switched)
	}
	flipInSegment(t, s, size, before)
}

// sum is what the segments from one LSN to another hold, taken together.
type sum struct {
	commits, ended int
	first, last    time.Time
	points         []wal.RestorePoint
	ranges         [][2]uint32
}

func (s sum) covers(xid uint32) bool {
	for _, r := range s.ranges {
		if r[0] <= xid && xid <= r[1] {
			return true
		}
	}
	return false
}

func sumOf(t *testing.T, s *postgres.Server, size pg.SegmentSize, id pg.SystemID, from, to pg.LSN) (all sum) {
	for n := size.SegmentOf(from); n <= size.SegmentOf(to-1); n++ {
		name := string(size.Name(1, n))
		r, err := examine(t, filepath.Join(s.DataDir, "pg_wal", name), name, wal.Options{SystemID: id, Visit: func(r *wal.Record) error {
			if r.RMID == 1 && (r.Info&0x70 == 0 || r.Info&0x70 >= 0x20 && r.Info&0x70 <= 0x40) {
				all.ended++
			}
			return nil
		}})
		require.NoError(t, err)
		require.True(t, r.Complete, "%s: %s", name, r.StopReason)
		require.Equal(t, s.Install.Major, r.Major)
		require.Equal(t, size, r.SegmentSize)
		all.points = append(all.points, r.RestorePoints...)
		all.ranges = append(all.ranges, [2]uint32{r.MinXID, r.MaxXID})
		all.commits += r.Commits
		if all.first.IsZero() || !r.FirstCommit.IsZero() && r.FirstCommit.Before(all.first) {
			all.first = r.FirstCommit
		}
		if r.LastCommit.After(all.last) {
			all.last = r.LastCommit
		}
		if n == size.SegmentOf(to-1) {
			require.True(t, r.Switched)
			require.Equal(t, to, r.ValidTo)
		}
	}
	return all
}

var waldumpLine = regexp.MustCompile(`^rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), lsn: (\S+), prev (\S+), desc: (\S+)`)

// compareWaldump compares every record of every complete segment with what
// PostgreSQL's own tool reads.
func compareWaldump(t *testing.T, env *postgres.Env, s *postgres.Server, from, to pg.LSN) {
	out, err := env.Run(context.Background(), s.Install.Path("pg_waldump"), "--path="+filepath.Join(s.DataDir, "pg_wal"), "--start="+from.String(), "--end="+to.String())
	require.NoError(t, err)
	type record struct {
		lsn, prev  pg.LSN
		length     uint32
		xid        uint32
		commit, ok bool
	}
	var theirs []record
	for _, line := range strings.Split(out, "\n") {
		m := waldumpLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		length, _ := strconv.Atoi(m[2])
		xid, _ := strconv.Atoi(m[3])
		at, err := pg.ParseLSN(m[4])
		require.NoError(t, err)
		prev, err := pg.ParseLSN(strings.TrimSuffix(m[5], ","))
		require.NoError(t, err)
		theirs = append(theirs, record{at, prev, uint32(length), uint32(xid), m[1] == "Transaction" && strings.HasPrefix(m[6], "COMMIT"), true})
	}
	byLSN := map[pg.LSN]record{}
	for _, r := range theirs {
		byLSN[r.lsn] = r
	}
	seen, crossing := 0, 0
	for _, path := range segments(t, s.DataDir) {
		var last pg.LSN
		r, err := examine(t, path, filepath.Base(path), wal.Options{Visit: func(r *wal.Record) error {
			want, ok := byLSN[r.LSN]
			if r.LSN < from || r.LSN >= to {
				return nil
			}
			if !ok {
				return fmt.Errorf("pg_waldump has no record at %s", r.LSN)
			}
			if want.length != r.Length || want.xid != r.XID || want.prev != r.Prev {
				return fmt.Errorf("at %s: %+v, pg_waldump says %+v", r.LSN, r, want)
			}
			seen++
			last = r.End
			return nil
		}})
		if errors.Is(err, wal.ErrNotWAL) || errors.Is(err, wal.ErrWrongPage) {
			continue // kept for later use
		}
		require.NoError(t, err)
		if r.Complete && !r.Switched && last != r.ValidTo {
			crossing++
		}
	}
	require.Greater(t, seen, 10000)
	// What crosses into the next segment is in no segment's report.
	require.InDelta(t, len(theirs), seen, float64(crossing)+3)
}

// flipInSegment shows that damage in a real segment is found.
func flipInSegment(t *testing.T, s *postgres.Server, size pg.SegmentSize, at pg.LSN) {
	name := size.Name(1, size.SegmentOf(at))
	b, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", string(name)))
	require.NoError(t, err)
	r, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{})
	require.NoError(t, err)
	valid := int(r.ValidTo - r.Start)
	for _, at := range []int{20000, valid / 2, valid - 9000} {
		b[at] ^= 4
		_, err := wal.Examine(bytes.NewReader(b), name, 0, wal.Options{})
		b[at] ^= 4
		var damaged *wal.DamagedError
		require.ErrorAs(t, err, &damaged, "byte %d", at)
	}
}

// checkControl compares pg_control with what the running server says of it.
func checkControl(t *testing.T, env *postgres.Env, s *postgres.Server) {
	s.MustExec(t, "checkpoint")
	c, err := pg.ReadControl(s.DataDir)
	require.NoError(t, err)
	require.Equal(t, s.Install.Major, c.Major())
	require.Equal(t, pg.StateProduction, c.State)
	text := func(sql string) string { return s.MustText(t, sql) }
	for what, pair := range map[string][2]string{
		"system":             {text("select system_identifier from pg_control_system()"), c.SystemID.String()},
		"version":            {text("select pg_control_version from pg_control_system()"), fmt.Sprint(c.Version)},
		"catalog":            {text("select catalog_version_no from pg_control_system()"), fmt.Sprint(c.CatalogVersion)},
		"modified":           {text("select extract(epoch from pg_control_last_modified)::bigint from pg_control_system()"), fmt.Sprint(c.Modified.Unix())},
		"checkpoint":         {text("select checkpoint_lsn from pg_control_checkpoint()"), c.Checkpoint.String()},
		"redo":               {text("select redo_lsn from pg_control_checkpoint()"), c.Redo.String()},
		"timeline":           {text("select timeline_id from pg_control_checkpoint()"), fmt.Sprint(c.Timeline)},
		"previous timeline":  {text("select prev_timeline_id from pg_control_checkpoint()"), fmt.Sprint(c.PrevTimeline)},
		"full_page_writes":   {text("select full_page_writes from pg_control_checkpoint()"), "t"},
		"next xid":           {text("select next_xid from pg_control_checkpoint()"), fmt.Sprintf("%d:%d", c.NextXID>>32, uint32(c.NextXID))},
		"checkpoint time":    {text("select extract(epoch from checkpoint_time)::bigint from pg_control_checkpoint()"), fmt.Sprint(c.CheckpointTime.Unix())},
		"min recovery":       {text("select min_recovery_end_lsn from pg_control_recovery()"), c.MinRecovery.String()},
		"min recovery tli":   {text("select min_recovery_end_timeline from pg_control_recovery()"), fmt.Sprint(c.MinRecoveryTimeline)},
		"backup start":       {text("select backup_start_lsn from pg_control_recovery()"), c.BackupStart.String()},
		"backup end":         {text("select backup_end_lsn from pg_control_recovery()"), c.BackupEnd.String()},
		"end required":       {text("select end_of_backup_record_required::int from pg_control_recovery()"), fmt.Sprint(b2i(c.BackupEndRequired))},
		"block size":         {text("select database_block_size from pg_control_init()"), fmt.Sprint(c.BlockSize)},
		"blocks per segment": {text("select blocks_per_segment from pg_control_init()"), fmt.Sprint(c.RelSegBlocks)},
		"WAL block size":     {text("select wal_block_size from pg_control_init()"), fmt.Sprint(c.WALBlockSize)},
		"WAL segment size":   {text("select bytes_per_wal_segment from pg_control_init()"), fmt.Sprint(uint32(c.SegmentSize))},
		"checksums":          {text("select data_page_checksum_version from pg_control_init()"), fmt.Sprint(c.ChecksumVersion)},
		"wal_level":          {text("show wal_level"), c.WALLevel.String()},
		"wal_log_hints":      {text("select (setting = 'on')::int from pg_settings where name = 'wal_log_hints'"), fmt.Sprint(b2i(c.WALLogHints))},
		"max_connections":    {text("show max_connections"), fmt.Sprint(c.MaxConnections)},
		"workers":            {text("show max_worker_processes"), fmt.Sprint(c.MaxWorkerProcesses)},
		"senders":            {text("show max_wal_senders"), fmt.Sprint(c.MaxWALSenders)},
		"prepared":           {text("show max_prepared_transactions"), fmt.Sprint(c.MaxPreparedXacts)},
		"locks":              {text("show max_locks_per_transaction"), fmt.Sprint(c.MaxLocksPerXact)},
		"commit timestamps":  {text("select (setting = 'on')::int from pg_settings where name = 'track_commit_timestamp'"), fmt.Sprint(b2i(c.TrackCommitTimestamp))},
	} {
		require.Equal(t, pair[0], pair[1], what)
	}
	require.True(t, c.DataChecksums)
	if tool := s.Install.Path("pg_controldata"); tool != "" {
		compareControldata(t, env, s, tool, c)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareControldata(t *testing.T, env *postgres.Env, s *postgres.Server, tool string, c pg.Control) {
	out, err := env.Run(context.Background(), tool, s.DataDir)
	require.NoError(t, err)
	said := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok {
			said[k] = strings.TrimSpace(v)
		}
	}
	for k, v := range map[string]any{
		"Database system identifier":           c.SystemID,
		"pg_control version number":            c.Version,
		"Catalog version number":               c.CatalogVersion,
		"Database cluster state":               c.State,
		"Latest checkpoint location":           c.Checkpoint,
		"Latest checkpoint's REDO location":    c.Redo,
		"Latest checkpoint's TimeLineID":       c.Timeline,
		"Minimum recovery ending location":     c.MinRecovery,
		"Backup start location":                c.BackupStart,
		"wal_level setting":                    c.WALLevel,
		"max_connections setting":              c.MaxConnections,
		"max_prepared_xacts setting":           c.MaxPreparedXacts,
		"Bytes per WAL segment":                uint32(c.SegmentSize),
		"Data page checksum version":           c.ChecksumVersion,
		"Blocks per segment of large relation": c.RelSegBlocks,
	} {
		require.Equal(t, said[k], fmt.Sprint(v), k)
	}
}

// checkPromotion promotes a standby and reads what that leaves behind.
func checkPromotion(t *testing.T, env *postgres.Env, primary *postgres.Server) {
	ctx := context.Background()
	standby := env.StartStandby(t, primary, postgres.Options{Name: "standby", NoFsync: true})
	primary.MustExec(t, "create table late as select g from generate_series(1, 2000) g")
	at, err := primary.LSN(ctx)
	require.NoError(t, err)
	require.NoError(t, standby.WaitReplay(ctx, at))
	require.NoError(t, standby.Promote(ctx))
	standby.MustExec(t, "insert into late select g from generate_series(1, 3000) g")
	switched := lsn(t, standby, "select pg_switch_wal()")

	b, err := os.ReadFile(filepath.Join(standby.DataDir, "pg_wal", "00000002.history"))
	require.NoError(t, err)
	h, err := pg.ParseHistory(2, b)
	require.NoError(t, err)
	require.Len(t, h.Entries, 1)
	fork := h.Entries[0].End
	require.GreaterOrEqual(t, fork, at)
	require.True(t, h.Contains(1, fork-1))
	require.True(t, h.Contains(2, fork))

	c, err := pg.ReadControl(standby.DataDir)
	require.NoError(t, err)
	size := c.SegmentSize
	name := string(size.Name(2, size.SegmentOf(fork)))
	oldest := pg.Timeline(99)
	_, err = examine(t, filepath.Join(standby.DataDir, "pg_wal", name), name, wal.Options{SystemID: c.SystemID, Visit: func(r *wal.Record) error {
		if r.LSN < fork {
			oldest = 1
		}
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, pg.Timeline(1), oldest, "the new timeline's first segment begins with a copy of the old one's")
	for n := size.SegmentOf(fork); n <= size.SegmentOf(switched-1); n++ {
		name := string(size.Name(2, n))
		r, err := examine(t, filepath.Join(standby.DataDir, "pg_wal", name), name, wal.Options{SystemID: c.SystemID})
		require.NoError(t, err, name)
		require.True(t, r.Complete, "%s: %s", name, r.StopReason)
	}
	// The old timeline's last segment, kept under another name if archiving is
	// on, as it was while the primary wrote it: it ends early, at no less than
	// the fork.
	old := string(size.Name(1, size.SegmentOf(fork)))
	r, err := examine(t, filepath.Join(primary.DataDir, "pg_wal", old), old, wal.Options{SystemID: c.SystemID})
	require.NoError(t, err)
	require.False(t, r.Complete)
	require.GreaterOrEqual(t, r.ValidTo, fork)
	require.NoError(t, standby.Stop(ctx, postgres.Fast))
}

// checkPages verifies every page of a cluster, and then one byte less.
func checkPages(t *testing.T, s *postgres.Server) {
	ctx := context.Background()
	require.NoError(t, s.Stop(ctx, postgres.Fast))
	relation := regexp.MustCompile(`^[0-9]+(_[a-z]+)?(\.[0-9]+)?$`)
	pages, largest, size := 0, "", int64(0)
	require.NoError(t, filepath.WalkDir(s.DataDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dir := filepath.Base(filepath.Dir(filepath.Dir(path)))
		if d.IsDir() || !relation.MatchString(d.Name()) || dir != "base" && filepath.Base(filepath.Dir(path)) != "global" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		require.Empty(t, pg.VerifyPages(b, 0), path)
		pages += len(b) / pg.PageSize
		if int64(len(b)) > size {
			largest, size = path, int64(len(b))
		}
		return nil
	}))
	require.Greater(t, pages, 1000)

	b, err := os.ReadFile(largest)
	require.NoError(t, err)
	block := len(b) / pg.PageSize / 2
	require.NotZero(t, pg.PageLSN(b[block*pg.PageSize:]))
	b[block*pg.PageSize+5000] ^= 1
	require.Equal(t, []uint32{uint32(block)}, pg.VerifyPages(b, 0))
}
