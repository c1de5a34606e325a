package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// Pause keeps scheduled runs of the repository from starting. There may be
// several, which count as one.
type Pause struct {
	Format int       `json:"format"` // filled in by PutPause
	Since  time.Time `json:"since"`
	By     string    `json:"by,omitempty"` // who, for people
}

const pausePrefix = "pause/"

// PutPause pauses the repository. It is one object, put if absent: it is there,
// or it is not.
func (r *Repository) PutPause(ctx context.Context, p Pause) error {
	p.Format = Format
	_, err := r.putSealed(ctx, pausePrefix+rand.Text(), p, r.Encrypted())
	return err
}

// Paused is the pause that has lasted longest, nil if there is none. One that
// cannot be read counts.
func (r *Repository) Paused(ctx context.Context) (*Pause, error) {
	keys, err := r.pauses(ctx)
	if err != nil {
		return nil, err
	}
	var oldest *Pause
	for _, key := range keys {
		var p Pause
		err := r.getSealed(ctx, key, &p, r.Encrypted())
		switch {
		case errors.Is(err, ErrNotFound): // ended just now
			continue
		case err != nil && !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrNoIdentity):
			return nil, err
		}
		if oldest == nil || p.Since.Before(oldest.Since) {
			oldest = &p
		}
	}
	return oldest, nil
}

// EndPause ends all pauses of the repository.
func (r *Repository) EndPause(ctx context.Context) error {
	keys, err := r.pauses(ctx)
	if err != nil || len(keys) == 0 {
		return err
	}
	if err := r.store.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("end the pause of %s: %w", r.name, err)
	}
	return nil
}

func (r *Repository) pauses(ctx context.Context) (keys []string, err error) {
	err = r.store.List(ctx, pausePrefix, object.ListOptions{}, func(i object.Info) error {
		if !strings.Contains(strings.TrimPrefix(i.Key, pausePrefix), "/") {
			keys = append(keys, i.Key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find out whether %s is paused: %w", r.name, err)
	}
	return keys, nil
}
