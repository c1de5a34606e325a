package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/walkeep/walkeep/integration/postgres"
)

func (d *stage) servers(ctx context.Context) (err error) {
	settings := d.site.ArchiveSettings()
	settings["archive_mode"] = "always"
	settings["max_wal_size"] = "1GB"
	if d.primary, err = d.env.InitDB(ctx, postgres.Options{Name: "pg-0", Checksums: true, Settings: settings}); err != nil {
		return err
	}
	if err := d.primary.Start(ctx); err != nil {
		return err
	}
	if _, err := d.env.Run(ctx, d.primary.Install.Path("pgbench"), "-i", "-q", "-s", "10", "-d", d.primary.ConnInfo()); err != nil {
		return err
	}
	if d.standby, err = d.env.Standby(ctx, d.primary, postgres.Options{Name: "pg-1"}); err != nil {
		return err
	}
	if err := d.standby.Start(ctx); err != nil {
		return err
	}
	size, err := d.primary.Text(ctx, "select pg_size_pretty(sum(pg_database_size(oid))) from pg_database")
	if err != nil {
		return err
	}
	fmt.Printf("PostgreSQL %d: pg-0 on port %d, pg-1 streaming from it on port %d, %s of data.\n",
		d.primary.Install.Major, d.primary.Port, d.standby.Port, size)
	return d.configure()
}

func (d *stage) check(ctx context.Context) error { return d.show(ctx, "check") }

func (d *stage) backup(ctx context.Context) error {
	return d.show(ctx, "backup", "--repo", "repo1,repo2,repo3", "--type", "full", "--annotate", "by=demo")
}

func (d *stage) failover(ctx context.Context) error {
	if err := d.load(ctx, d.primary, 5); err != nil {
		return err
	}
	lsn, err := d.primary.LSN(ctx)
	if err != nil {
		return err
	}
	// Asynchronous replication: what the standby has not received is lost with
	// any primary. The demo wants to compare sums, so it lets it catch up.
	if err := d.standby.WaitReplay(ctx, lsn); err != nil {
		return err
	}
	if err := d.primary.Kill9(); err != nil {
		return err
	}
	fmt.Printf("pg-0 killed at %s.\n", lsn)
	if err := d.standby.Promote(ctx); err != nil {
		return err
	}
	at, err := d.standby.Text(ctx, "select pg_walfile_name(pg_current_wal_lsn())")
	if err != nil {
		return err
	}
	fmt.Printf("pg-1 promoted; it writes %s.\n", at)
	return d.load(ctx, d.standby, 5)
}

func (d *stage) mistake(ctx context.Context) (err error) {
	if d.before, err = d.counts(ctx, d.standby); err != nil {
		return err
	}
	if d.lsn, err = d.standby.LSN(ctx); err != nil {
		return err
	}
	text, err := d.standby.Text(ctx, "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
	if err != nil {
		return err
	}
	if d.moment, err = time.Parse(time.RFC3339Nano, text); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	if err := d.standby.Exec(ctx, "drop table pgbench_accounts"); err != nil {
		return err
	}
	fmt.Printf("Dropped just after %s, %s.\n", text, d.lsn)
	last, err := d.standby.SwitchWAL(ctx)
	if err != nil {
		return err
	}
	return d.standby.WaitArchived(ctx, last)
}

func (d *stage) list(ctx context.Context) error { return d.show(ctx, "list") }

func (d *stage) restore(ctx context.Context) error {
	dir, err := d.env.Mkdir("clone")
	if err != nil {
		return err
	}
	d.clone = filepath.Join(dir, "data")
	return d.show(ctx, "restore", "--repo", "repo3", "--pgdata", d.clone,
		"--target-time", d.moment.Format("2006-01-02 15:04:05.000000Z07:00"), "--target-action", "promote")
}

func (d *stage) proof(ctx context.Context) error {
	if out, err := d.env.Run(ctx, d.primary.Install.Path("pg_verifybackup"), "-n", d.clone); err != nil {
		return err
	} else {
		fmt.Print("pg_verifybackup: ", out)
	}
	clone, err := d.env.Open(d.clone, nil)
	if err != nil {
		return err
	}
	if err := clone.Start(ctx); err != nil {
		return err
	}
	if err := clone.WaitFor(ctx, "select not pg_is_in_recovery()"); err != nil {
		return err
	}
	after, err := d.counts(ctx, clone)
	if err != nil {
		return err
	}
	end, err := clone.Text(ctx, "select checkpoint_lsn from pg_control_checkpoint()")
	if err != nil {
		return err
	}
	fmt.Printf("%-38s %15s %15s\n", "", "before the drop", "in the clone")
	for _, name := range slices.Sorted(maps.Keys(d.before)) {
		fmt.Printf("%-38s %15s %15s\n", name, d.before[name], after[name])
	}
	fmt.Printf("%-38s %15s %15s\n", "WAL position", d.lsn, end)
	if !maps.Equal(d.before, after) {
		return errors.New("the clone is not what was there before the drop")
	}
	fmt.Println("\nThe clone has every row, across the failover.")
	return nil
}
