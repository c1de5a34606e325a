package repo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object"
)

// Verified says what one run of verification found to be whole, so that the
// next one need not look at it again until it is due.
type Verified struct {
	Format  int              `json:"format"` // filled in
	At      time.Time        `json:"at"`     // when it was verified
	Level   string           `json:"level"`  // exists, stored, full
	Backups []VerifiedBackup `json:"backups,omitempty"`
	WAL     []VerifiedWAL    `json:"wal,omitempty"`
}

// VerifiedBackup is one backup that is whole, and all that it references.
type VerifiedBackup struct {
	SystemID pg.SystemID `json:"system_identifier"`
	Label    Label       `json:"label"`
}

// VerifiedWAL is a run of segments that are whole; Last is included.
type VerifiedWAL struct {
	SystemID pg.SystemID    `json:"system_identifier"`
	First    pg.SegmentName `json:"first"`
	Last     pg.SegmentName `json:"last"`
}

const verifiedPrefix = "verified/"

// PutVerified stores what was found.
func (r *Repository) PutVerified(ctx context.Context, v Verified) error {
	v.Format = Format
	_, err := r.putSealed(ctx, verifiedPrefix+v.At.UTC().Format(labelTime)+"-"+rand.Text(), v, r.Encrypted())
	return err
}

// VerifiedSince reads what was found from a moment on, and deletes what is
// older. What cannot be read counts as not verified.
func (r *Repository) VerifiedSince(ctx context.Context, since time.Time) (all []Verified, err error) {
	limit := verifiedPrefix + since.UTC().Format(labelTime)
	var old, keys []string
	err = r.store.List(ctx, verifiedPrefix, object.ListOptions{}, func(i object.Info) error {
		if strings.Compare(i.Key, limit) < 0 {
			old = append(old, i.Key)
		} else {
			keys = append(keys, i.Key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list what was verified in %s: %w", r.name, err)
	}
	for _, key := range keys {
		var v Verified
		err := r.getSealed(ctx, key, &v, r.Encrypted())
		switch {
		case err == nil && v.Format == Format:
			all = append(all, v)
		case err != nil && !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
	if len(old) > 0 {
		if err := r.store.Delete(ctx, old...); err != nil {
			return nil, fmt.Errorf("remove old notes of what was verified in %s: %w", r.name, err)
		}
	}
	return all, nil
}

// StatPack compares the size of a stored pack with what a manifest says:
// *DamageError if it differs or the pack is not there.
func (e *Epoch) StatPack(ctx context.Context, ref PackRef) error {
	key := e.packKey(ref.Label, ref.Number)
	info, err := e.r.store.Stat(ctx, key)
	switch {
	case errors.Is(err, ErrNotFound):
		return &DamageError{Key: key, Why: "it is missing", Err: ErrNotFound}
	case err != nil:
		return fmt.Errorf("look at %s: %w", key, err)
	case info.Size != ref.Size:
		return damaged(key, "it has %d bytes, its manifest says %d", info.Size, ref.Size)
	}
	return nil
}

// DigestPack reads a stored pack and compares size and SHA-256 with what a
// manifest says: *DamageError if they differ. It needs no identity.
func (e *Epoch) DigestPack(ctx context.Context, ref PackRef) error {
	key := e.packKey(ref.Label, ref.Number)
	p := &PackReader{r: e.r, ref: ref, key: key}
	body, err := p.get(ctx, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	h := sha256.New()
	n, err := io.Copy(h, body)
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", key, err)
	case n != ref.Size:
		return damaged(key, "it has %d bytes, its manifest says %d", n, ref.Size)
	case [32]byte(h.Sum(nil)) != ref.SHA256:
		return damaged(key, "its SHA-256 is not the one in the manifest")
	}
	return nil
}
