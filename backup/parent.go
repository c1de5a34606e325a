package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// parent is the backup that a differential or incremental one builds on, in
// one repository.
type parent struct {
	summary   repo.Summary
	header    repo.Header
	manifest  *repo.ManifestReader
	cursor    cursor
	databases map[uint32]uint32 // OID to XMin
}

// lineage is what decides whether an earlier backup is one of this server's
// own past.
type lineage struct {
	line    repo.Line
	history pg.History
	at      pg.LSN // how far the server has come
	major   int
	kind    repo.BackupType
}

// refuses says why a backup cannot be the parent, or "".
//
// Pages are taken from the parent if the server has not changed them since the
// parent began. So the parent must be a state that this server has gone
// through: it ended on the server's own line of timelines, and before where
// the server is now. What another branch wrote would be missed or, worse, kept.
func (l lineage) refuses(s repo.Summary) string {
	switch {
	case l.kind == repo.Differential && s.Type != repo.Full:
		return "not a full backup"
	case s.PGVersion/10000 != l.major:
		return fmt.Sprintf("it is of PostgreSQL %d", s.PGVersion/10000)
	case !l.line.Holds(s.Timeline, s.StopLSN):
		return fmt.Sprintf("it ended at %s on timeline %d, which is not in the past of timeline %d that the server is on", s.StopLSN, s.Timeline, l.line.Timeline())
	case s.StopLSN > l.at:
		return fmt.Sprintf("it ended at %s, and the server has come to %s only", s.StopLSN, l.at)
	}
	return ""
}

// chooseParents finds in each repository what the backup builds on: the newest
// backup that can be relied on. Where there is none, it becomes a full one.
func (b *run) chooseParents(ctx context.Context) {
	var l lineage
	var err error
	if b.Type != repo.Full {
		l, err = b.lineage(ctx)
		b.line = l.line
	}
	for _, t := range b.targets {
		t.kind = repo.Full
		if t.out.Load() || b.Type == repo.Full {
			continue
		}
		if err != nil {
			t.fail(err)
			continue
		}
		if err := b.chooseParent(ctx, t, l); err != nil {
			t.fail(err)
			continue
		}
		if t.parent != nil {
			t.kind = b.Type
		} else {
			t.note(b.Log, fmt.Sprintf("a full backup is taken instead of %s one: there is no backup to build on", article(b.Type)))
		}
	}
}

func article(t repo.BackupType) string {
	if t == repo.Incremental {
		return "an incremental"
	}
	return "a " + string(t)
}

func (t *target) note(log *zap.Logger, text string) {
	t.notes = append(t.notes, text)
	log.Warn(text, zap.String("repository", t.repo.Name()))
}

func (b *run) lineage(ctx context.Context) (lineage, error) {
	l := lineage{major: b.info.Major, kind: b.Type, history: pg.History{Timeline: b.info.Timeline}}
	if b.info.Timeline > 1 {
		name := "pg_wal/" + pg.HistoryName(b.info.Timeline)
		text, err := b.Source.readFile(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return l, fmt.Errorf("read the history of timeline %d: %w", b.info.Timeline, err)
		}
		if err == nil {
			if l.history, err = pg.ParseHistory(b.info.Timeline, text); err != nil {
				return l, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	l.line = l.history.Path()
	var err error
	if b.info.InRecovery {
		l.at, err = b.Server.ReplayLSN(ctx)
	} else {
		l.at, err = b.Server.CurrentLSN(ctx)
	}
	return l, err
}

// chooseParent looks through the backups of one repository, those that end
// last first.
func (b *run) chooseParent(ctx context.Context, t *target, l lineage) error {
	all, err := t.epoch.Backups(ctx)
	switch {
	case errors.Is(err, repo.ErrIntegrity), errors.Is(err, repo.ErrNoIdentity):
		t.note(b.Log, "backups that cannot be read are no parents: "+err.Error())
	case err != nil:
		return err
	}
	slices.SortStableFunc(all, func(x, y repo.Summary) int {
		return cmp.Or(cmp.Compare(y.StopLSN, x.StopLSN), y.Stop.Compare(x.Stop))
	})
	for _, s := range all {
		if l.kind == repo.Differential && s.Type != repo.Full {
			continue
		}
		why := l.refuses(s)
		if why == "" {
			why, err = b.otherHistory(ctx, t, l, s)
		}
		if why == "" && err == nil {
			t.parent, why, err = b.openParent(ctx, t, s)
		}
		if err != nil {
			return err
		}
		if t.parent != nil {
			return nil
		}
		t.note(b.Log, fmt.Sprintf("%s cannot be built on: %s", s.Label, why))
	}
	return nil
}

// otherHistory says why a timeline of the same number is not the server's, or
// "": two servers that could not see each other chose the same number.
func (b *run) otherHistory(ctx context.Context, t *target, l lineage, s repo.Summary) (string, error) {
	if s.Timeline != l.history.Timeline || s.Timeline == 1 {
		return "", nil
	}
	var text historyText
	_, err := t.epoch.GetWAL(ctx, repo.HistoryFile(s.Timeline), &text)
	switch {
	case errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity), errors.Is(err, repo.ErrNoIdentity):
		return "", nil
	case errors.Is(err, repo.ErrIntegrity):
		return "the history file of its timeline is damaged", nil
	case err != nil:
		return "", err
	}
	h, err := pg.ParseHistory(s.Timeline, text)
	if err != nil {
		return "the history file of its timeline is damaged", nil
	}
	same := slices.EqualFunc(h.Entries, l.history.Entries, func(x, y pg.HistoryEntry) bool {
		return x.Timeline == y.Timeline && x.End == y.End
	})
	if !same {
		return fmt.Sprintf("timeline %d in the repository is not the one that the server is on", s.Timeline), nil
	}
	return "", nil
}

// historyText gathers a history file.
type historyText []byte

func (h *historyText) Write(b []byte) (int, error) {
	*h = append(*h, b...)
	return len(b), nil
}

// openParent opens a backup to build on, or says why that cannot be done.
func (b *run) openParent(ctx context.Context, t *target, s repo.Summary) (p *parent, why string, err error) {
	m, err := t.epoch.OpenManifest(ctx, s)
	if err == nil {
		err = t.epoch.CheckPacks(ctx, m.Packs())
		if err != nil {
			_ = m.Close()
		}
	}
	switch {
	case errors.Is(err, repo.ErrIntegrity), errors.Is(err, repo.ErrNoIdentity):
		return nil, err.Error(), nil
	case err != nil:
		return nil, "", err
	}
	h := m.Header()
	switch {
	case h.DataChecksums != b.control.DataChecksums:
		// pg_checksums writes every page and changes no LSN.
		why = "page checksums were switched on or off since"
	case h.BlockSize != pg.PageSize:
		why = fmt.Sprintf("its pages have %d bytes", h.BlockSize)
	}
	if why != "" {
		_ = m.Close()
		return nil, why, nil
	}
	return &parent{summary: s, header: h, manifest: m, cursor: manifestCursor(m), databases: databasesOf(h.Databases)}, "", nil
}

// planner decides, when the backup has begun, how changes are found.
func (b *run) planner(ctx context.Context) (*planner, error) {
	var err error
	if b.facts, err = b.Server.Facts(ctx); err != nil {
		return nil, err
	}
	building := false
	for _, t := range b.targets {
		if t.parent == nil || t.out.Load() {
			continue
		}
		if s := t.parent.summary; b.start.LSN < s.StopLSN {
			// Only a standby begins at an older checkpoint. Its backup could
			// not be restored to any moment that the parent cannot.
			t.fail(fmt.Errorf("%w: the standby's last restartpoint is at %s, and %s ended at %s; make a checkpoint on the primary and let the standby replay it",
				ErrNothingNew, b.start.LSN, s.Label, s.StopLSN))
			continue
		}
		building = true
	}
	if b.alive() == 0 {
		return nil, errNoRepository
	}
	resumed, err := b.resumePlanner(ctx)
	if err != nil {
		return nil, err
	}
	if !building {
		if b.Detect != DetectBest && b.Detect != DetectWhole && b.Type != repo.Full {
			return nil, &DetectError{b.Detect, "there is no backup to build on"}
		}
		if resumed == nil {
			return nil, nil
		}
		return &planner{targets: b.targets, rung: DetectWhole, resumed: resumed}, nil
	}
	p := b.newPlanner(b.targets)
	p.resumed = resumed
	return p, b.chooseRung(ctx, p)
}

func (b *run) newPlanner(targets []*target) *planner {
	p := &planner{targets: targets, now: map[uint32]uint32{}, place: b.Source.place(), pgdata: b.Source.pgdata()}
	for _, d := range b.facts.Databases {
		p.now[d.OID] = d.XMin
	}
	return p
}
