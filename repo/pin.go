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

// Pin keeps a backup from expiring, whatever retention says. Several pins of
// one backup count as the one that lasts longest.
type Pin struct {
	Format  int       `json:"format"` // filled in by PutPin
	Label   Label     `json:"label"`
	Created time.Time `json:"created"`
	// Until is when it ends; nil: never.
	Until  *time.Time `json:"until,omitempty"`
	By     string     `json:"by,omitempty"` // who, for people
	Reason string     `json:"reason,omitempty"`

	key string
}

// Holds reports whether the pin keeps the backup at a moment.
func (p Pin) Holds(at time.Time) bool { return p.Until == nil || at.Before(*p.Until) }

// ExpiryLease is the lease of whoever removes backups, and of whoever
// promises that one stays.
const ExpiryLease = "expire"

func (e *Epoch) pinPrefix(l Label) string { return e.prefix("pin") + string(l) + "/" }

// PutPin pins a backup. It holds the lease of expiry meanwhile, so that the
// backup is not removed by a run that did not know of the pin: ErrBusy while
// such a run lasts longer than wait. ErrNotFound: no such backup.
func (e *Epoch) PutPin(ctx context.Context, p Pin, wait time.Duration) error {
	lease, err := e.r.AcquireLease(ctx, ExpiryLease, LeaseOptions{What: "pinning " + string(p.Label), Wait: wait})
	if err != nil {
		return fmt.Errorf("pin backup %s in %s: %w", p.Label, e.r.name, err)
	}
	p.Format, p.Created = Format, e.r.clock().UTC()
	_, err = e.Summary(ctx, p.Label)
	if err == nil {
		_, err = e.r.putSealed(ctx, e.pinPrefix(p.Label)+rand.Text(), p, e.r.Encrypted())
	}
	if err != nil {
		err = fmt.Errorf("pin backup %s in %s: %w", p.Label, e.r.name, err)
	}
	return errors.Join(err, lease.Release(context.WithoutCancel(ctx)))
}

// Pins reads all pins, also those that ended. A pin that cannot be read back
// keeps its backup for ever: it is returned with nothing but the label, and in
// the error, a *DamageError (joined).
func (e *Epoch) Pins(ctx context.Context) ([]Pin, error) {
	var pins []Pin
	prefix := e.prefix("pin")
	err := e.list(ctx, prefix, "", func(i object.Info) error {
		text, _, _ := strings.Cut(i.Key[len(prefix):], "/")
		if label, err := ParseLabel(text); err == nil {
			pins = append(pins, Pin{Label: label, key: i.Key})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var damage []error
	for i := range pins {
		p := Pin{}
		err := e.r.getSealed(ctx, pins[i].key, &p, e.r.Encrypted())
		if err == nil {
			err = checkFormat(pins[i].key, p.Format)
		}
		if err == nil && p.Label != pins[i].Label {
			err = damaged(pins[i].key, "it is a pin of %s", p.Label)
		}
		switch {
		case errors.Is(err, ErrIntegrity):
			damage = append(damage, err)
		case errors.Is(err, ErrNotFound): // unpinned just now
			past := time.Time{}
			pins[i].Until = &past
		case err != nil:
			return nil, err
		default:
			p.key = pins[i].key
			pins[i] = p
		}
	}
	return pins, errors.Join(damage...)
}

// DeletePins removes pins that Pins returned.
func (e *Epoch) DeletePins(ctx context.Context, pins ...Pin) error {
	keys := make([]string, len(pins))
	for i, p := range pins {
		keys[i] = p.key
	}
	if err := e.r.store.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("remove pins in %s: %w", e.r.name, err)
	}
	return nil
}
