package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ready measures archiving of many segments that are ready: archive_command is
// called for one after the other, as the server does, with walkeep's agent and
// with pgBackRest's asynchronous mode behind it. The start of either is in the
// time. A second round of calls through the agent finds everything archived.
func (b *bench) ready(ctx context.Context) error {
	if b.readySegments == 0 {
		return nil
	}
	for _, c := range []codec{{name: "lz4", back: "lz4", level: 1}, {name: "zstd", back: "zst", level: 3}} {
		if err := b.setCodec(ctx, c); err != nil {
			return err
		}
		if err := b.archiverOff(ctx); err != nil {
			return err
		}
		segments, err := b.makeSegments(ctx, b.readySegments)
		if err != nil {
			return err
		}
		r := row{work: fmt.Sprintf("archiving %d ready segments, %s", len(segments), c), goal: "≥ 2.0, < 128 MiB"}
		again := row{work: "push of an archived segment through the agent, " + c.String(), goal: "< 10 ms", onlyOurs: true, perRun: len(segments)}
		err = b.alternate(ctx, b.rounds, &r, func() (sample, error) {
			first, second, err := b.throughAgent(ctx, segments)
			again.ours = append(again.ours, second)
			return first, err
		}, func() (sample, error) { return b.asynchronous(ctx, segments) })
		if err != nil {
			return err
		}
		b.add(r)
		b.add(again)
	}
	return nil
}

// archiverOff keeps the server's own archiver out of the way.
func (b *bench) archiverOff(ctx context.Context) error {
	if err := b.server.Configure(map[string]string{"archive_command": "false"}); err != nil {
		return err
	}
	return b.server.Reload(ctx)
}

// throughAgent pushes all segments twice through an agent that begins with an
// empty archive. The memory is the agent's peak.
func (b *bench) throughAgent(ctx context.Context, segments []string) (first, second sample, err error) {
	if err := removeSegments(b.ours); err != nil {
		return first, second, err
	}
	push := func(path string) (sample, error) {
		return timed(b.env.Command(ctx, b.site.Programs.WAL(), "--config", b.site.Config, "push", path))
	}
	begin := time.Now()
	stop, pid, err := b.startAgent(ctx)
	if err != nil {
		return first, second, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for { // else the first call does the work itself
		conn, err := net.Dial("unix", b.socket)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Since(begin) > time.Minute {
			return first, second, fmt.Errorf("no agent: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := b.pushAll(segments, "", push); err != nil {
		return first, second, err
	}
	first.took = time.Since(begin)
	if second, err = b.pushAll(segments, "", push); err != nil {
		return first, second, err
	}
	first.rss, err = peak(pid)
	return first, second, err
}

// startAgent starts walkeep's agent beside the server.
func (b *bench) startAgent(ctx context.Context) (stop func() error, pid int, err error) {
	agent := b.site.Command(ctx, "agent", "--pgdata", b.server.DataDir, "--log-level", "error")
	var log bytes.Buffer
	agent.Stdout, agent.Stderr = &log, &log
	if err := agent.Start(); err != nil {
		return nil, 0, err
	}
	return func() error {
		_ = agent.Process.Signal(syscall.SIGTERM)
		if err := agent.Wait(); err != nil {
			return fmt.Errorf("agent: %w\n%s", err, log.String())
		}
		return nil
	}, agent.Process.Pid, nil
}

// asynchronous does so with pgBackRest.
func (b *bench) asynchronous(ctx context.Context, segments []string) (sample, error) {
	if err := removeSegments(filepath.Join(b.theirs, "archive", "bench")); err != nil {
		return sample{}, err
	}
	spool, err := b.env.Mkdir("spool")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(spool)
	begin := time.Now()
	s, err := b.pushAll(segments, "", func(path string) (sample, error) {
		return b.pgbackrest(ctx, "--archive-async", "--spool-path="+spool, "--log-level-file=warn", "--log-path="+spool, "archive-push", path)
	})
	if err != nil { // what went wrong the process in the background knows
		said, _ := os.ReadFile(filepath.Join(spool, "bench-archive-push-async.log"))
		return s, fmt.Errorf("%w\n%s", err, said)
	}
	s.took = time.Since(begin)
	return s, err
}

// peak is the most memory that a running process had, bytes (proc_pid_status(5)).
func peak(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM of process %d", pid)
}
