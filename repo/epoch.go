package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object"
)

// EpochInfo describes one life of a cluster, from initdb or pg_upgrade to the
// next pg_upgrade.
type EpochInfo struct {
	Format      int            `json:"format"`
	SystemID    pg.SystemID    `json:"system_identifier"`
	PGMajor     int            `json:"pg_major"` // 13 and up
	SegmentSize pg.SegmentSize `json:"segment_size"`
	Created     time.Time      `json:"created"`
}

// Epoch is what a repository holds of one system identifier: its WAL and its
// backups.
type Epoch struct {
	r  *Repository
	id pg.SystemID

	mu   sync.Mutex
	info *EpochInfo // guarded by mu; nil until read
}

// Epochs lists the epochs, oldest first.
func (r *Repository) Epochs(ctx context.Context) ([]EpochInfo, error) {
	var ids []pg.SystemID
	err := r.store.List(ctx, epochPrefix, object.ListOptions{}, func(i object.Info) error {
		id, err := pg.ParseSystemID(strings.TrimPrefix(i.Key, epochPrefix))
		if err == nil { // whatever else lies there is not ours
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the epochs of %s: %w", r.name, err)
	}
	infos := make([]EpochInfo, 0, len(ids))
	for _, id := range ids {
		info, err := r.Epoch(id).Info(ctx)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, func(a, b EpochInfo) int { return a.Created.Compare(b.Created) })
	return infos, nil
}

// Epoch is the epoch of a system identifier, without any I/O.
func (r *Repository) Epoch(id pg.SystemID) *Epoch { return &Epoch{r: r, id: id} }

// EnsureEpoch records the epoch if it is new. If it is known and its facts
// differ, ErrMismatch. info.Format and info.Created are filled in. Where the
// keys at hand cannot read metadata, a known epoch is not compared.
func (r *Repository) EnsureEpoch(ctx context.Context, info EpochInfo) (*Epoch, error) {
	info.Format, info.Created = Format, r.clock().UTC()
	if err := info.check(); err != nil {
		return nil, fmt.Errorf("record an epoch: %w", err)
	}
	e := r.Epoch(info.SystemID)
	known, err := e.Info(ctx)
	if errors.Is(err, ErrNotFound) {
		_, err = r.putSealed(ctx, epochKey(info.SystemID), info, r.Encrypted())
		if errors.Is(err, ErrExists) {
			return r.EnsureEpoch(ctx, info)
		}
		known = info
	}
	if errors.Is(err, ErrNoIdentity) {
		known, err = info, nil
	}
	if err != nil {
		return nil, err
	}
	if known.PGMajor != info.PGMajor || known.SegmentSize != info.SegmentSize {
		return nil, fmt.Errorf("epoch %s in %s is PostgreSQL %d with segments of %d bytes, not %d with %d: %w",
			info.SystemID, r.name, known.PGMajor, known.SegmentSize, info.PGMajor, info.SegmentSize, ErrMismatch)
	}
	e.remember(known)
	return e, nil
}

func (i EpochInfo) check() error {
	if i.SystemID == 0 || i.PGMajor < 1 || !i.SegmentSize.Valid() {
		return fmt.Errorf("impossible facts: system identifier %s, PostgreSQL %d, segments of %d bytes", i.SystemID, i.PGMajor, i.SegmentSize)
	}
	return nil
}

// Repository is the repository that holds the epoch.
func (e *Epoch) Repository() *Repository { return e.r }

// SystemID is the epoch's system identifier.
func (e *Epoch) SystemID() pg.SystemID { return e.id }

// Info reads the epoch's facts, once; later calls remember.
func (e *Epoch) Info(ctx context.Context) (EpochInfo, error) {
	e.mu.Lock()
	known := e.info
	e.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	key := epochKey(e.id)
	var info EpochInfo
	if err := e.r.getSealed(ctx, key, &info, e.r.Encrypted()); err != nil {
		return EpochInfo{}, err
	}
	if err := checkFormat(key, info.Format); err != nil {
		return EpochInfo{}, err
	}
	if err := info.check(); err != nil {
		return EpochInfo{}, asDamage(key, err)
	}
	if info.SystemID != e.id {
		return EpochInfo{}, damaged(key, "it describes epoch %s", info.SystemID)
	}
	e.remember(info)
	return info, nil
}

func (e *Epoch) remember(info EpochInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info = &info
}
