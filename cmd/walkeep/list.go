package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

func newListCommand(r *root) *cobra.Command {
	var (
		names  []string
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "list",
		Short: "List backups, archived WAL and the recovery window of each repository",
		Long: `List the backups, the archived WAL with its gaps, and the recovery window of
each repository. A repository that cannot be reached is shown with its error;
the others are listed all the same, and the exit status is 1. With --server it is
what the service saw last.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := r.service(c)
			if err != nil {
				return err
			}
			if s != nil {
				return r.remoteList(c.Context(), s, names, asJSON)
			}
			cfg, err := r.config()
			if err != nil {
				return err
			}
			r.patience = forPeople
			repos, err := r.repositories(c.Context(), names...)
			if err != nil {
				return err
			}
			l := list(c.Context(), cfg.Cluster, repos)
			if asJSON {
				err = r.printJSON(l)
			} else {
				err = printList(r.stdout, l, r.location())
			}
			return errors.Join(err, l.err())
		},
	}
	c.Flags().StringSliceVar(&names, "repo", nil, "repositories to list (default: all)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return askable(c)
}

// listing is what `list --json` prints. Scripts rely on its shape.
type listing struct {
	Cluster string       `json:"cluster"`
	Repos   []listedRepo `json:"repos"`
}

// listedRepo is one repository of a listing.
type listedRepo struct {
	Name    string         `json:"name"`
	Status  repoStatus     `json:"status"`
	Error   *string        `json:"error"`
	Backups []listedBackup `json:"backups"`
	// WAL and Window are those of the newest epoch (system identifier).
	WAL    []repo.TimelineCoverage `json:"wal"`
	Window listedWindow            `json:"recovery_window"`
	// Conflicts are the WAL files of that epoch that were archived with two
	// contents.
	Conflicts []walConflict `json:"conflicts"`
	// Drills are the newest rehearsals of restores, oldest first.
	Drills []repo.Drill `json:"drills"`

	location string
	failure  error
	windows  []repo.Window
}

// repoStatus says whether a repository could be listed.
type repoStatus string

const (
	repoOK      repoStatus = "ok"
	repoEmpty   repoStatus = "empty"   // nothing was ever stored there
	repoDamaged repoStatus = "damaged" // listed, without what cannot be read back
	repoError   repoStatus = "error"   // cannot be reached, or is another cluster's
)

// listedBackup is one backup of a listing.
type listedBackup struct {
	Label       repo.Label        `json:"label"`
	Type        repo.BackupType   `json:"type"`
	Parent      *repo.Label       `json:"parent"`
	Start       time.Time         `json:"start"`
	Stop        time.Time         `json:"stop"`
	StartLSN    pg.LSN            `json:"start_lsn"`
	StopLSN     pg.LSN            `json:"stop_lsn"`
	Timeline    pg.Timeline       `json:"timeline"`
	Bytes       int64             `json:"bytes"`
	StoredBytes int64             `json:"stored_bytes"`
	PageErrors  int64             `json:"page_errors"`
	Annotations map[string]string `json:"annotations"`
}

// listedWindow is the whole recovery window; null if nothing can be restored.
type listedWindow struct {
	Earliest *time.Time `json:"earliest"`
	Latest   *time.Time `json:"latest"`
}

// err is why the exit status is not 0: every repository that could not be
// listed whole.
func (l listing) err() error {
	var failures []error
	for _, r := range l.Repos {
		if r.failure != nil {
			failures = append(failures, &repositoryError{r.Name, r.failure})
		}
	}
	return errors.Join(failures...)
}

// list looks at all repositories at the same time.
func list(ctx context.Context, cluster string, repos []*repo.Repository) listing {
	l := listing{Cluster: cluster, Repos: make([]listedRepo, len(repos))}
	var g errgroup.Group
	for i, r := range repos {
		g.Go(func() error {
			l.Repos[i] = listRepo(ctx, r)
			return nil
		})
	}
	_ = g.Wait() // each entry holds its own error
	return l
}

func listRepo(ctx context.Context, r *repo.Repository) listedRepo {
	l := listedRepo{
		Name: r.Name(), Status: repoOK, location: r.Store().String(),
		Backups: []listedBackup{}, WAL: []repo.TimelineCoverage{}, Conflicts: []walConflict{}, Drills: []repo.Drill{},
	}
	err := l.fill(ctx, r)
	switch {
	case err == nil:
		return l
	case errors.Is(err, errEmptyRepository):
		l.Status = repoEmpty
		return l
	case errors.Is(err, repo.ErrIntegrity):
		l.Status = repoDamaged
	default:
		l.Status = repoError
	}
	l.failure = err
	text := err.Error()
	l.Error = &text
	return l
}

// errEmptyRepository: nothing was ever stored in the repository.
var errEmptyRepository = errors.New("the repository is empty")

func (l *listedRepo) fill(ctx context.Context, r *repo.Repository) error {
	epochs, err := readEpochs(ctx, r)
	if err != nil {
		return err
	}
	var damaged error
	for i, epoch := range epochs {
		h, err := epoch.Holdings(ctx)
		if err != nil {
			return err
		}
		damaged = errors.Join(damaged, h.Damaged)
		for _, b := range h.Backups {
			l.Backups = append(l.Backups, newListedBackup(b))
		}
		if i < len(epochs)-1 {
			continue
		}
		l.WAL = append(l.WAL, coverage(h)...)
		l.Conflicts = walConflicts(h.Conflicts)
		if l.windows, err = h.Windows(ctx, repo.NewHeadCache(epoch)); err != nil {
			damaged = errors.Join(damaged, err)
		}
		l.Window = wholeWindow(l.windows)
	}
	drills, err := r.Drills(ctx, listedDrills)
	if err != nil {
		return err
	}
	l.Drills = append(l.Drills, drills...)
	return damaged
}

// listedDrills is how many rehearsals are listed.
const listedDrills = 10

// readEpochs checks the marker and opens what the repository holds, oldest
// epoch first. An empty repository is errEmptyRepository.
func readEpochs(ctx context.Context, r *repo.Repository) ([]*repo.Epoch, error) {
	if _, err := r.Marker(ctx); errors.Is(err, repo.ErrNotFound) {
		return nil, errEmptyRepository
	} else if err != nil {
		return nil, err
	}
	infos, err := r.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	epochs := make([]*repo.Epoch, len(infos))
	for i, info := range infos {
		epochs[i] = r.Epoch(info.SystemID)
	}
	return epochs, nil
}

func newListedBackup(s repo.Summary) listedBackup {
	b := listedBackup{
		Label: s.Label, Type: s.Type, Start: s.Start.UTC(), Stop: s.Stop.UTC(),
		StartLSN: s.StartLSN, StopLSN: s.StopLSN, Timeline: s.Timeline,
		Bytes: s.Bytes, StoredBytes: s.StoredBytes, PageErrors: s.PageErrors,
		Annotations: s.Annotations,
	}
	if s.Parent != "" {
		b.Parent = &s.Parent
	}
	if b.Annotations == nil {
		b.Annotations = map[string]string{}
	}
	return b
}

// coverage is the WAL of each timeline with the holes between its runs.
func coverage(h repo.Holdings) []repo.TimelineCoverage {
	var all []repo.TimelineCoverage
	for _, t := range h.Timelines() {
		runs := h.Runs[t]
		if len(runs) == 0 {
			continue
		}
		c := repo.TimelineCoverage{Timeline: t, From: runs[0].From, To: runs[len(runs)-1].To, Gaps: []repo.Gap{}}
		for i, run := range runs {
			c.Segments += run.Segments
			if i > 0 && runs[i-1].To < run.From {
				c.Gaps = append(c.Gaps, repo.Gap{From: runs[i-1].To, To: run.From})
			}
		}
		all = append(all, c)
	}
	return all
}

func wholeWindow(windows []repo.Window) listedWindow {
	var w listedWindow
	for _, one := range windows {
		earliest, latest := one.Earliest.UTC(), one.Latest.UTC()
		if w.Earliest == nil || earliest.Before(*w.Earliest) {
			w.Earliest = &earliest
		}
		if w.Latest == nil || latest.After(*w.Latest) {
			w.Latest = &latest
		}
	}
	return w
}
