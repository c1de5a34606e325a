package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/pg"
)

// replay measures how long recovery takes to replay many segments: the time
// from the start of redo to its end, as the server says it, with fsync on.
// restore_command is walkeep-wal, pgBackRest with asynchronous get and two
// processes, and cp from a local directory, which is what it can be at best.
func (b *bench) replay(ctx context.Context) error {
	if b.segmentsToReplay == 0 {
		return nil
	}
	if err := b.setCodec(ctx, codec{name: "zstd", back: "zst", level: 3}); err != nil {
		return err
	}
	local, err := b.env.Mkdir("local-wal")
	if err != nil {
		return err
	}
	if err := b.archiveTo(ctx, fmt.Sprintf(`cp "%%p" %s/%%f`, local)); err != nil {
		return err
	}
	if _, err := b.walkeep(ctx, "backup", "--repo", "repo1", "--type", "full"); err != nil {
		return err
	}
	if err := b.writeWAL(ctx, b.segmentsToReplay); err != nil {
		return err
	}
	theirs, err := b.asyncGet()
	if err != nil {
		return err
	}
	r := row{work: fmt.Sprintf("replay of %d segments", b.segmentsToReplay)}
	cp := row{work: r.work + " from local files (cp)", onlyOurs: true}
	for range b.rounds {
		for command, to := range map[string]*[]sample{
			"":                                    &r.ours,
			theirs:                                &r.theirs,
			fmt.Sprintf(`cp %s/%%f "%%p"`, local): &cp.ours,
		} {
			s, err := b.recover(ctx, command)
			if err != nil {
				return err
			}
			*to = append(*to, s)
		}
	}
	r.goal = fmt.Sprintf("≤ 1.1 × cp; it is %.2f ×", float64(median(r.ours).took)/float64(median(cp.ours).took))
	b.add(cp)
	b.add(r)
	return nil
}

// archiveTo has both tools archive what the server writes from now on, and a
// third command too ("": none).
func (b *bench) archiveTo(ctx context.Context, third string) error {
	command := fmt.Sprintf(`%s && pgbackrest --config=%s --stanza=bench archive-push "%%p"`, b.site.ArchiveSettings()["archive_command"], b.backs)
	if third != "" {
		command += " && " + third
	}
	if err := b.server.Configure(map[string]string{"archive_command": command}); err != nil {
		return err
	}
	return b.server.Reload(ctx)
}

// asyncGet is pgBackRest's restore_command with its asynchronous get.
func (b *bench) asyncGet() (string, error) {
	spool, err := b.env.Mkdir("spool-pgbackrest")
	return fmt.Sprintf(`pgbackrest --config=%s --stanza=bench --pg1-path="$PWD" --archive-async --spool-path=%s --process-max=2 archive-get %%f "%%p"`, b.backs, spool), err
}

// updateUntil updates rows until there are enough segments: full page images
// after each checkpoint, and records of rows. It returns the last segment.
func (b *bench) updateUntil(ctx context.Context, segments int) (last pg.SegmentName, err error) {
	begin, err := b.server.LSN(ctx)
	if err != nil {
		return "", err
	}
	for i := 0; ; i++ {
		if err := b.server.Exec(ctx, fmt.Sprintf(
			"update pgbench_accounts set abalance = abalance + 1 where aid %% 10 = %d and aid <= 1000000", i%10)); err != nil {
			return "", err
		}
		now, err := b.server.LSN(ctx)
		if err != nil {
			return "", err
		}
		if int((now-begin)>>24) >= segments {
			return b.server.SwitchWAL(ctx)
		}
	}
}

// writeWAL does so, and waits until all is archived.
func (b *bench) writeWAL(ctx context.Context, segments int) error {
	last, err := b.updateUntil(ctx, segments)
	if err != nil {
		return err
	}
	for range 20 { // WaitArchived waits for a minute
		if err = b.server.WaitArchived(ctx, last); err == nil {
			return nil
		}
	}
	return err
}

var redoDone = regexp.MustCompile(`redo done at .* elapsed: ([0-9.]+) s`)

// recover restores, starts a server with this restore_command ("": ours), and
// returns how long its redo took.
func (b *bench) recover(ctx context.Context, command string) (s sample, err error) {
	dir, err := b.env.Mkdir("replay")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	args := []string{"restore", "--repo", "repo1", "--pgdata", data, "--set", "fsync=on"}
	if command != "" {
		args = append(args, "--set", "restore_command="+command)
	}
	if _, err := b.walkeep(ctx, args...); err != nil {
		return s, err
	}
	clone, err := b.env.Open(data, nil)
	if err != nil {
		return s, err
	}
	if err := clone.Start(ctx); err != nil {
		return s, err
	}
	defer func() { _ = clone.Stop(ctx, postgres.Immediate) }()
	for range 600 {
		log, err := os.ReadFile(clone.LogFile)
		if err != nil {
			return s, err
		}
		if m := redoDone.FindSubmatch(log); m != nil {
			seconds, err := strconv.ParseFloat(string(m[1]), 64)
			s.took = time.Duration(seconds * float64(time.Second))
			fmt.Fprintf(os.Stderr, "replayed in %s (%.20s)\n", s.took, command)
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return s, fmt.Errorf("recovery does not end: %s", b.env.Logs(20))
}
