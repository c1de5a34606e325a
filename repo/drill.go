package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object"
)

// Drill is what came of one rehearsal of a restore.
type Drill struct {
	Format   int         `json:"format"` // filled in by PutDrill
	Started  time.Time   `json:"started"`
	Ended    time.Time   `json:"ended"`
	By       string      `json:"by,omitempty"` // host
	SystemID pg.SystemID `json:"system_identifier,omitempty"`
	Backup   Label       `json:"backup,omitempty"`
	// Target is the moment that was asked for; zero: the newest.
	Target time.Time `json:"target,omitzero"`
	// Timeline and LSN are where recovery ended.
	Timeline pg.Timeline `json:"timeline,omitempty"`
	LSN      pg.LSN      `json:"lsn,omitzero"`
	Bytes    int64       `json:"bytes,omitempty"` // restored
	// How long each part took, in seconds: until the files were there, until the
	// server was open, the checks.
	RestoreSeconds  float64 `json:"restore_seconds,omitempty"`
	RecoverySeconds float64 `json:"recovery_seconds,omitempty"`
	CheckSeconds    float64 `json:"check_seconds,omitempty"`
	// Checks are those that were made, in order.
	Checks []DrillCheck `json:"checks,omitempty"`
	// Error is why it failed; "": it did not.
	Error string `json:"error,omitempty"`
}

// DrillCheck is one check of the restored cluster.
type DrillCheck struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"` // "": passed
}

// OK reports whether the cluster was restored and passed all checks.
func (d Drill) OK() bool { return d.Error == "" }

const (
	drillPrefix = "drill/"
	// keptDrills is how many of the newest results are kept.
	keptDrills = 100
)

// PutDrill records a result, and deletes those that are older than the newest
// hundred.
func (r *Repository) PutDrill(ctx context.Context, d Drill) error {
	d.Format = Format
	if _, err := r.putSealed(ctx, drillPrefix+d.Started.UTC().Format(labelTime)+"-"+rand.Text(), d, r.Encrypted()); err != nil {
		return err
	}
	keys, err := r.drillKeys(ctx)
	if err != nil || len(keys) <= keptDrills {
		return err
	}
	if err := r.store.Delete(ctx, keys[:len(keys)-keptDrills]...); err != nil {
		return fmt.Errorf("remove old results of drills in %s: %w", r.name, err)
	}
	return nil
}

// drillKeys are the keys of all results, oldest first.
func (r *Repository) drillKeys(ctx context.Context) (keys []string, err error) {
	err = r.store.List(ctx, drillPrefix, object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the results of drills in %s: %w", r.name, err)
	}
	return keys, nil
}

// Drills reads the newest results, at most that many, oldest first. What cannot
// be read back is left out.
func (r *Repository) Drills(ctx context.Context, most int) ([]Drill, error) {
	keys, err := r.drillKeys(ctx)
	if err != nil {
		return nil, err
	}
	var all []Drill
	for _, key := range keys[max(0, len(keys)-most):] {
		d, err := r.drill(ctx, key)
		if err != nil && !errors.Is(err, ErrIntegrity) {
			return nil, err
		}
		if d != nil {
			all = append(all, *d)
		}
	}
	return all, nil
}

// drill reads one result; nil: it is gone, or not for us to read.
func (r *Repository) drill(ctx context.Context, key string) (*Drill, error) {
	var d Drill
	err := r.getSealed(ctx, key, &d, r.Encrypted())
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrNoIdentity), err == nil && d.Format != Format:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &d, nil
}

// DrillCache remembers the results that were read from one repository: they never
// change. The zero value is empty. For one goroutine at a time.
type DrillCache struct{ known map[string]*Drill } // nil: not for us to read

// NewestDrills is LastDrills of all results that are kept. It reads what it has
// not read before.
func (r *Repository) NewestDrills(ctx context.Context, cache *DrillCache) (passed, last *Drill, err error) {
	keys, err := r.drillKeys(ctx)
	if err != nil {
		return nil, nil, err
	}
	kept := map[string]*Drill{}
	for _, key := range slices.Backward(keys) {
		d, ok := cache.known[key]
		if !ok {
			d, err = r.drill(ctx, key)
			if errors.Is(err, ErrIntegrity) {
				continue // perhaps it can be read the next time
			}
			if err != nil {
				return nil, nil, err
			}
		}
		kept[key] = d
		if d == nil {
			continue
		}
		if last == nil {
			last = d
		}
		if d.OK() {
			passed = d
			break
		}
	}
	cache.known = kept // what is older, or gone, is not asked for again
	return passed, last, nil
}

// LastDrills picks, of results in their order, the newest one that passed and
// the newest one; nil if there is none.
func LastDrills(all []Drill) (passed, last *Drill) {
	for i := range slices.Backward(all) {
		if last == nil {
			last = &all[i]
		}
		if all[i].OK() {
			return &all[i], last
		}
	}
	return nil, last
}
