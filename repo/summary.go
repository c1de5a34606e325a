package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object"
)

// Summary is the small object that makes a backup exist.
type Summary struct {
	Format      int            `json:"format"` // filled in by Commit
	Label       Label          `json:"label"`
	Type        BackupType     `json:"type"`
	Parent      Label          `json:"parent,omitempty"` // the backup it builds on; "" for a full
	Start       time.Time      `json:"start"`
	Stop        time.Time      `json:"stop"` // from here on the cluster can be restored
	StartLSN    pg.LSN         `json:"start_lsn"`
	StopLSN     pg.LSN         `json:"stop_lsn"`
	Timeline    pg.Timeline    `json:"timeline"` // of StopLSN; a standby's can begin on an older one
	SystemID    pg.SystemID    `json:"system_identifier"`
	PGVersion   int            `json:"pg_version"` // server_version_num, 150013
	SegmentSize pg.SegmentSize `json:"segment_size"`
	FromStandby bool           `json:"from_standby,omitempty"`
	Node        string         `json:"node,omitempty"` // where it was taken
	// Source is how its files were read: "sql", over SQL, or "", from its disk.
	Source string `json:"source,omitempty"`

	Annotations map[string]string `json:"annotations,omitempty"`

	// Commit fills in the rest.

	Bytes          int64       `json:"bytes"`        // of all files, as restored
	StoredBytes    int64       `json:"stored_bytes"` // of this backup's own objects
	Files          int64       `json:"files"`        // regular files
	PageErrors     int64       `json:"page_errors"`  // pages listed as bad
	References     []Label     `json:"references,omitempty"`
	Manifest       ManifestRef `json:"manifest"`
	Codec          string      `json:"codec"`
	Encrypted      bool        `json:"encrypted,omitempty"`
	WalkeepVersion string      `json:"walkeep_version,omitempty"` // the caller's
}

// ManifestRef pins the manifest's stored bytes.
type ManifestRef struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// check refuses a summary that cannot be.
func (s *Summary) check() error {
	switch {
	case s.Type != s.Label.Type() || s.Label == "":
		return fmt.Errorf("a %s backup cannot have the label %q", s.Type, s.Label)
	case s.Type != Full && s.Parent == "":
		return fmt.Errorf("a %s backup without parent", s.Type)
	case s.Timeline == 0 || !s.SegmentSize.Valid() || s.SystemID == 0:
		return errors.New("timeline, segment size or system identifier are missing")
	case s.StopLSN < s.StartLSN || s.StartLSN == 0:
		return fmt.Errorf("it cannot reach from %s to %s", s.StartLSN, s.StopLSN)
	case s.Manifest.Size < 1 || len(s.Manifest.SHA256) != 64:
		return errors.New("no digest of the manifest")
	case s.Bytes < 0 || s.StoredBytes < 0 || s.Files < 0 || s.PageErrors < 0:
		return errors.New("negative counts")
	}
	return nil
}

// Backups lists the backups by the time of their stop. Summaries that cannot
// be read are reported in the error (joined), the others are returned all the
// same.
func (e *Epoch) Backups(ctx context.Context) ([]Summary, error) { return e.backups(ctx, nil) }

func (e *Epoch) backups(ctx context.Context, c *RunCache) ([]Summary, error) {
	var labels []Label
	prefix := e.prefix("summary")
	err := e.r.store.List(ctx, prefix, object.ListOptions{}, func(i object.Info) error {
		if label, err := ParseLabel(strings.TrimPrefix(i.Key, prefix)); err == nil {
			labels = append(labels, label)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the backups of %s: %w", e.r.name, err)
	}
	c.forget(e, labels)
	summaries := make([]*Summary, len(labels))
	failures := make([]error, len(labels))
	var group errgroup.Group
	group.SetLimit(listWorkers)
	for i, label := range labels {
		group.Go(func() error {
			s, err := c.summary(ctx, e, label)
			switch {
			case err == nil:
				summaries[i] = &s
			case !errors.Is(err, ErrNotFound): // else it has just expired
				failures[i] = err
			}
			return nil
		})
	}
	_ = group.Wait() // failures has them
	var list []Summary
	for _, s := range summaries {
		if s != nil {
			list = append(list, *s)
		}
	}
	slices.SortStableFunc(list, func(a, b Summary) int {
		return cmp.Or(a.Stop.Compare(b.Stop), cmp.Compare(a.Label, b.Label))
	})
	return list, errors.Join(failures...)
}

// listWorkers is how many small objects are read at once.
const listWorkers = 8

// Summary reads one backup's summary. ErrNotFound: there is no such backup.
func (e *Epoch) Summary(ctx context.Context, label Label) (Summary, error) {
	if _, err := ParseLabel(string(label)); err != nil {
		return Summary{}, err
	}
	key := e.summaryKey(label)
	var s Summary
	if err := e.r.getSealed(ctx, key, &s, e.r.Encrypted()); err != nil {
		return Summary{}, err
	}
	if err := checkFormat(key, s.Format); err != nil {
		return Summary{}, err
	}
	if err := s.check(); err != nil {
		return Summary{}, asDamage(key, err)
	}
	if s.Label != label || s.SystemID != e.id {
		return Summary{}, damaged(key, "it is the summary of %s of %s", s.Label, s.SystemID)
	}
	return s, nil
}
