package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// checkArchiving makes the primary end a segment and waits for it to arrive in
// every repository, however it gets there.
func (o Options) checkArchiving(ctx context.Context, nodes []*node, repos []*repository) Section {
	s := Section{Kind: KindArchiving}
	if o.NoSwitch {
		s.skip("wal_switch", "not asked for")
		return s
	}
	var primary *node
	for _, n := range nodes {
		switch {
		case !n.known || n.info.InRecovery:
		case primary != nil:
			s.skip("wal_switch", "there are two primaries")
			return s
		default:
			primary = n
		}
	}
	switch {
	case primary == nil:
		s.skip("wal_switch", "no primary could be asked")
		return s
	case primary.info.ArchiveMode == "off":
		s.skip("wal_switch", "archive_mode is off")
		return s
	}
	begun := o.Clock()
	sw, err := primary.conn.SwitchWAL(ctx)
	if err != nil {
		s.failErr("wal_switch", err, primary.conn.GrantAdvice())
		return s
	}
	s.ok("wal_switch", "%s ended segment %s", primary.Name, sw.Segment)
	arrivals := make([]Check, len(repos))
	var g errgroup.Group
	for i, p := range repos {
		g.Go(func() error {
			arrivals[i] = o.arrival(ctx, p, primary, sw, begun)
			return nil
		})
	}
	_ = g.Wait() // the outcomes are in arrivals
	s.Checks = append(s.Checks, arrivals...)
	return s
}

// arrival waits for a segment in one repository, and reads it.
func (o Options) arrival(ctx context.Context, p *repository, primary *node, sw server.Switch, begun time.Time) Check {
	c := Check{Name: "arrival", Target: p.Name}
	if !p.answers {
		c.Status, c.Detail = Skipped, "the repository could not be used"
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, o.ArchiveTimeout)
	defer cancel()
	epoch := p.repo.Epoch(primary.info.SystemID)
	err := await(ctx, epoch, sw.Segment)
	took := o.Clock().Sub(begun).Round(10 * time.Millisecond)
	switch {
	case err == nil:
		c.Status, c.Detail = OK, fmt.Sprintf("after %s", took)
		return c
	case errors.Is(err, repo.ErrIntegrity):
		c.Advice = "What arrived cannot be read back as it was written: see what is said about the repository, and about any proxy in front of it."
	case ctx.Err() != nil:
		err = fmt.Errorf("segment %s did not arrive within %s: %w", sw.Segment, o.ArchiveTimeout, err)
		c.Advice = arrivalAdvice(primary, sw.Segment)
	default:
		c.Advice = storeAdvice(err, "read")
	}
	c.Status, c.Detail, c.err = Failed, err.Error(), err
	return c
}

// await polls for a segment until ctx ends; only ErrNotFound is worth waiting
// for, and a store that fails now and then.
func await(ctx context.Context, epoch *repo.Epoch, name pg.SegmentName) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := arrived(ctx, epoch, name)
		if err == nil || errors.Is(err, repo.ErrIntegrity) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// arrived reads a segment to its last byte, or as much as the keys at hand
// allow.
func arrived(ctx context.Context, epoch *repo.Epoch, name pg.SegmentName) error {
	head, err := epoch.WALHead(ctx, repo.SegmentFile(name))
	if errors.Is(err, repo.ErrNoIdentity) {
		return nil // it is there
	}
	if err != nil {
		return err
	}
	_, err = epoch.GetWAL(ctx, head.WALName(), io.Discard)
	if errors.Is(err, repo.ErrNoIdentity) {
		return nil
	}
	return err
}

// arrivalAdvice looks at the archiver to say where to look further.
func arrivalAdvice(primary *node, segment pg.SegmentName) string {
	const byHand = "Run archive_command by hand, as the user that the server runs as, with the path of a segment in pg_wal: it says what is wrong."
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := primary.conn.Archiver(ctx)
	switch {
	case err != nil:
		return "Look into the server's log for what archive_command says. " + byHand
	case a.Failing:
		return fmt.Sprintf("The archiver of %s fails, last with %s (%d failures so far): the server's log has what archive_command says. %s", primary.Name, a.LastFailed, a.Failures, byHand)
	case len(a.LastArchived) >= len(segment) && a.LastArchived >= string(segment):
		return fmt.Sprintf("The archiver of %s has archived %s, but to another place, or to fewer repositories (archive.require). Is the configuration that archive_command reads this one?", primary.Name, segment)
	}
	// A command that is not found (exit status above 125) ends the archiver
	// process, which then is not counted as a failure.
	return fmt.Sprintf("The archiver of %s has not come to %s yet, and counts no failure: it is far behind, archive_command hangs, or cannot be run at all (a wrong path; the server's log has \"exit code 127\" then). %s", primary.Name, segment, byHand)
}
