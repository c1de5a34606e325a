package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
)

// alive counts the repositories that have not failed.
func (b *run) alive() int {
	n := 0
	for _, t := range b.targets {
		if !t.out.Load() {
			n++
		}
	}
	return n
}

// committed says whether the backup exists in any repository.
func (b *run) committed() bool {
	for _, s := range b.stored {
		if s.Label != "" {
			return true
		}
	}
	return false
}

func (b *run) result() Result {
	r := Result{Label: b.label}
	for i, t := range b.targets {
		r.Repos = append(r.Repos, RepoResult{Name: t.repo.Name(), Summary: b.stored[i], Err: t.failure(), Notes: t.notes})
	}
	for _, s := range b.stored {
		if s.Label != "" {
			r.Label = s.Label
			break
		}
	}
	return r
}

// failures joins what went wrong in each repository; nil if nothing did.
func (b *run) failures() error {
	var errs []error
	for _, t := range b.targets {
		if err := t.failure(); err != nil {
			errs = append(errs, fmt.Errorf("back up into %s: %w", t.repo.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// failed is the outcome of a backup that exists nowhere because of err.
func (b *run) failed(ctx context.Context, err error) (Result, error) {
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("backup stopped: %w", cause)
	} else if errors.Is(err, errNoRepository) {
		err = b.failures()
	}
	for _, t := range b.targets {
		t.fail(err)
	}
	return b.result(), err
}

// cleanUp deletes what was stored in repositories that do not have the backup,
// and releases the leases, also when ctx is over.
func (b *run) cleanUp(ctx context.Context) {
	for _, stop := range b.watches {
		stop()
	}
	ctx = context.WithoutCancel(ctx)
	var all sync.WaitGroup
	for i, t := range b.targets {
		all.Go(func() {
			if b.stored[i].Label == "" {
				t.leave(ctx, b.Log)
			}
			if t.parent != nil {
				_ = t.parent.manifest.Close()
			}
			if t.journal != nil {
				_ = t.journal.Close()
			}
			if t.lease == nil {
				return
			}
			ctx, cancel := context.WithTimeout(ctx, stopTimeout)
			defer cancel()
			if err := t.lease.Release(ctx); err != nil && !errors.Is(err, repo.ErrLeaseLost) {
				b.Log.Warn("release the lease: it runs out by itself", zap.String("repository", t.repo.Name()), zap.Error(err))
			}
		})
	}
	all.Wait()
}

// abort deletes what was stored of the backup in this repository.
func (t *target) abort(ctx context.Context, log *zap.Logger) {
	if t.writer == nil {
		return
	}
	if err := t.writer.Abort(ctx); err != nil {
		log.Warn("delete what the failed backup stored: it stays as garbage until the next expiry", zap.String("repository", t.repo.Name()), zap.Error(err))
	}
	t.writer = nil
}

// leave gives the backup up in this repository, and leaves what was stored for
// the next one to use, unless the store is full.
func (t *target) leave(ctx context.Context, log *zap.Logger) {
	if t.writer == nil || errors.Is(t.failure(), syscall.ENOSPC) || errors.Is(t.failure(), syscall.EDQUOT) {
		t.abort(ctx, log)
		return
	}
	label := t.writer.Label()
	if err := t.writer.Leave(ctx); err != nil {
		log.Warn("delete what the failed backup stored: it stays as garbage until the next expiry", zap.String("repository", t.repo.Name()), zap.Error(err))
	} else if t.writer.Journalled() > 0 {
		log.Info("what was stored is kept for the next backup of the same type", zap.String("repository", t.repo.Name()), zap.String("label", string(label)))
	}
	t.writer = nil
}
