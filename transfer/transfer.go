// Package transfer copies a backup from one repository to another, with what it
// builds on and the WAL that it needs.
//
// What is copied is data as it is: packs keep their frames, and are encrypted
// anew to the recipients of the target, or not at all, as its configuration
// says. So the copy of an encrypted backup needs the data's private key, and
// one between two plain repositories needs none.
//
// # The order, and what a crash leaves
//
// The backups that the wanted one builds on are copied first, each as a whole:
// in the target each is a backup like any other, and can be restored. Of each
// one its WAL comes first, then packs, manifest, summary, so that what is listed
// in the target can be restored at any moment. Killed anywhere, the copy leaves
// whole backups, WAL, and packs under a label without a summary. The next copy
// finds these under their numbers, compares them with the original, and goes on.
// (If the target expires in between, it takes such packs for garbage of a killed
// backup, and the next copy begins anew.)
//
// Several copies at a time: who copies a label holds its lease in the target.
// A second one waits for as long as it was told to, and finds the backup there.
//
// In the source all backups of the chain are marked as in use before the first
// byte is read, oldest last, so that none of them expires meanwhile; and while a
// copy writes in the target, its lease keeps the target from removing WAL.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// ErrOther: the target has another backup of that label.
var ErrOther = errors.New("the target has another backup with that label")

// Progress is told how a copy goes; see package backup.
type Progress interface {
	Stage(what string)
	Total(bytes int64)
	Add(bytes int64)
}

type noProgress struct{}

func (noProgress) Stage(string) {}
func (noProgress) Total(int64)  {}
func (noProgress) Add(int64)    {}

// Options of Run. From, To, SystemID and Label are required.
type Options struct {
	From, To *repo.Repository
	SystemID pg.SystemID
	Label    repo.Label
	// AllWAL copies, besides the WAL that makes the backups consistent, all that
	// follows the first of them without a gap, so that the copy can be restored to
	// each moment from there to the latest.
	AllWAL   bool
	Workers  int           // packs and segments at a time; 0: 4
	Wait     time.Duration // for another copy of the same label
	Progress Progress      // nil: none
	Log      *zap.Logger   // nil: none
}

// Result is what Run did.
type Result struct {
	Label    repo.Label   `json:"label"`
	Copied   []repo.Label `json:"copied"`  // in this order
	Present  []repo.Label `json:"present"` // were there already
	Packs    int          `json:"packs"`   // copied, or found from a killed copy
	Bytes    int64        `json:"bytes"`   // of these, as stored
	Segments int          `json:"segments"`
	// Latest is how far the WAL in the target goes on from the backup.
	Latest pg.LSN `json:"latest"`
}

// Run copies a backup. Errors: repo.ErrNotFound: there is no such backup;
// repo.ErrBusy: another copies it; repo.ErrNoIdentity; ErrOther;
// repo.ErrIntegrity: the source is damaged, or its WAL has a gap.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.From == nil || o.To == nil || o.From.Name() == o.To.Name() {
		return Result{}, errors.New("copy a backup: two repositories are needed")
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	c := &copying{Options: o, from: o.From.Epoch(o.SystemID), result: Result{Label: o.Label, Copied: []repo.Label{}, Present: []repo.Label{}}}
	defer c.release(ctx)
	err := c.run(ctx)
	return c.result, err
}

// copying is one run.
type copying struct {
	Options
	from, to *repo.Epoch
	size     pg.SegmentSize
	uses     []*repo.Lease
	held     repo.Holdings // of the source
	total    int64         // bytes to copy, as far as known
	result   Result
}

func (c *copying) release(ctx context.Context) {
	for _, u := range c.uses {
		if err := u.Release(context.WithoutCancel(ctx)); err != nil {
			c.Log.Warn("the mark of use stays until it is stale", zap.Error(err))
		}
	}
}

func (c *copying) run(ctx context.Context) error {
	c.Progress.Stage(fmt.Sprintf("looking at %s in %s", c.Label, c.From.Name()))
	chain, err := c.chain(ctx)
	if err != nil {
		return err
	}
	info, err := c.from.Info(ctx)
	if err != nil {
		return err
	}
	c.size = info.SegmentSize
	if err := c.To.Init(ctx); err != nil {
		return err
	}
	if c.to, err = c.To.EnsureEpoch(ctx, info); err != nil {
		return err
	}
	if c.held, err = c.from.Holdings(ctx); err != nil {
		return err
	}
	for _, s := range chain {
		if err := c.backup(ctx, s); err != nil {
			return fmt.Errorf("copy backup %s from %s to %s: %w", s.Label, c.From.Name(), c.To.Name(), err)
		}
	}
	if c.AllWAL {
		if err := c.allWAL(ctx, chain); err != nil {
			return fmt.Errorf("copy WAL from %s to %s: %w", c.From.Name(), c.To.Name(), err)
		}
	}
	return nil
}

// allWAL copies all WAL that follows, from the first backup of the chain on, so
// that there is no gap between them in the target: one would be looked for, and
// alerted. Where the source has one, it goes on from the backup behind it.
func (c *copying) allWAL(ctx context.Context, chain []repo.Summary) error {
	var done pg.LSN
	for _, s := range chain {
		if s.StopLSN <= done {
			continue
		}
		if err := c.wal(ctx, s, pg.MaxLSN); err != nil {
			return err
		}
		done = c.held.Reach(c.newest(c.held.Line(s.Timeline), s.StopLSN), s.StartLSN).End
	}
	return nil
}

// chain is the backup and what it builds on, oldest first, all marked as in use.
func (c *copying) chain(ctx context.Context) ([]repo.Summary, error) {
	var chain []repo.Summary
	for label := c.Label; label != ""; {
		use, s, err := c.from.UseBackup(ctx, label, repo.LeaseOptions{What: fmt.Sprintf("copy of %s to %s", c.Label, c.To.Name())})
		if err != nil {
			return nil, err
		}
		c.uses = append(c.uses, use)
		chain = append(chain, s)
		if label = s.Parent; len(chain) > 10000 {
			return nil, fmt.Errorf("the backups that %s builds on have no end", c.Label)
		}
	}
	slices.Reverse(chain)
	return chain, nil
}

// backup copies one backup whose parent is there.
func (c *copying) backup(ctx context.Context, s repo.Summary) error {
	if done, err := c.present(ctx, s); done || err != nil {
		return err
	}
	w, err := c.to.ContinueCopy(ctx, s.Label, repo.LeaseOptions{Wait: c.Wait})
	if errors.Is(err, repo.ErrExists) { // another copy finished it meanwhile
		if done, err := c.present(ctx, s); done || err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	defer w.LeaveCopy(ctx)
	if err := c.wal(ctx, s, s.StopLSN); err != nil {
		return err
	}
	m, err := c.from.OpenManifest(ctx, s)
	if err != nil {
		return err
	}
	defer m.Close()
	c.Progress.Stage("copying " + string(s.Label))
	ids, err := c.packs(ctx, w, s, m)
	if err != nil {
		return err
	}
	c.Progress.Stage("storing the manifest of " + string(s.Label))
	if err := addFiles(w, m, ids); err != nil {
		return err
	}
	stored, err := w.Commit(ctx, m.Header(), s)
	if err != nil {
		return err
	}
	// What was just stored is looked at as a reader will.
	if err := c.check(ctx, stored); err != nil {
		return err
	}
	c.result.Copied = append(c.result.Copied, s.Label)
	c.Log.Info("copied", zap.String("label", string(s.Label)), zap.Int64("stored", stored.StoredBytes))
	return nil
}

// present reports whether the target has the backup already.
func (c *copying) present(ctx context.Context, s repo.Summary) (bool, error) {
	there, err := c.to.Summary(ctx, s.Label)
	switch {
	case errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity):
		return false, nil
	case err != nil:
		return false, err
	case there.StartLSN != s.StartLSN || there.StopLSN != s.StopLSN || there.Timeline != s.Timeline || there.Bytes != s.Bytes:
		return false, ErrOther
	}
	c.result.Present = append(c.result.Present, s.Label)
	return true, c.wal(ctx, s, s.StopLSN)
}

func (c *copying) check(ctx context.Context, s repo.Summary) error {
	m, err := c.to.OpenManifest(ctx, s)
	if err != nil {
		return err
	}
	defer m.Close()
	return c.to.CheckPacks(ctx, m.Packs())
}
