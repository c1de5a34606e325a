package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
)

// Outcome is what a push came to in one repository.
type Outcome int

const (
	// Failed: the file is not known to be there.
	Failed Outcome = iota
	// Stored by this push.
	Stored
	// Present already, with the same content or the same records.
	Present
	// Conflict: other content has the name, or another timeline the number.
	// The file is durable, beside it, and people must look: see [ConflictError].
	Conflict
	// Nothing to store: a file that the server made for later use under a timeline
	// that it has left since.
	Nothing
)

// String is the outcome in one word.
func (o Outcome) String() string {
	return [...]string{"failed", "stored", "present", "conflict", "nothing"}[o]
}

// RepoResult is the outcome in one repository.
type RepoResult struct {
	Repo    string
	Outcome Outcome
	Err     error // if Failed
	// Conflict, if that is the outcome.
	Conflict *ConflictError
}

// Result is what became of a pushed file.
type Result struct {
	// Name is what it is archived as: an incomplete segment becomes a partial
	// one, whatever its file is called.
	Name  repo.WALName
	Repos []RepoResult // in the order of Options.Repos
}

// Push archives the file of pg_wal at path in all repositories, in parallel. It
// returns without error when Options.Require of them have it durably; what went
// wrong with the others is in the result. A conflict counts as having it: the
// file is durable there. Errors: *RefusedError, and those of the repositories,
// each in a *RepoError.
func (a *Archive) Push(ctx context.Context, path string) (Result, error) {
	f, err := a.Open(path)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	result := Result{Name: f.Name(), Repos: make([]RepoResult, len(a.opts.Repos))}
	have := a.pushAll(ctx, f, result.Repos)
	result.Name = f.Name()
	a.log(result)
	if have >= a.opts.Require {
		return result, nil
	}
	var errs []error
	for _, r := range result.Repos {
		if errors.Is(r.Err, ErrRefused) {
			return result, r.Err // one reason is enough: it is the file's
		}
		if r.Err != nil {
			errs = append(errs, r.Err)
		}
	}
	return result, fmt.Errorf("archive %s: %d of %d repositories have it, %d must: %w",
		result.Name, have, len(result.Repos), a.opts.Require, errors.Join(errs...))
}

// pushAll pushes to every repository at once and returns how many have the
// file. When enough have it, the others get a grace: a repository that does not
// answer must not hold up the archiving of the next file.
func (a *Archive) pushAll(ctx context.Context, f *File, results []RepoResult) (have int) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type outcome struct {
		i int
		r RepoResult
	}
	outcomes := make(chan outcome)
	for i, r := range a.opts.Repos {
		go func() {
			o, c, err := a.pushTo(ctx, i, f)
			outcomes <- outcome{i, RepoResult{Repo: r.Name(), Outcome: o, Conflict: c, Err: a.repoError(ctx, i, err)}}
		}()
	}
	began := time.Now()
	for range results {
		o := <-outcomes
		results[o.i] = o.r
		if o.r.Outcome == Failed {
			continue
		}
		if have++; have == a.opts.Require {
			grace := a.opts.Grace + 2*time.Since(began)
			t := time.AfterFunc(grace, func() {
				cancel(fmt.Errorf("no answer %s after enough other repositories had the file", grace.Round(time.Millisecond)))
			})
			defer t.Stop()
		}
	}
	return have
}

// PushTo archives the file in the i-th of Options.Repos. One that is there
// already costs one small read of the repository and the file's digest. A
// [Conflict] is no error; it is logged. Errors: *RefusedError, which is the same
// for every repository, and else a *RepoError.
func (a *Archive) PushTo(ctx context.Context, i int, f *File) (Outcome, error) {
	o, _, err := a.pushTo(ctx, i, f)
	return o, a.repoError(ctx, i, err)
}

// repoError says which repository an error comes from.
func (a *Archive) repoError(ctx context.Context, i int, err error) error {
	if err == nil || errors.As(err, new(*RefusedError)) {
		return err
	}
	return &RepoError{Repo: a.opts.Repos[i].Name(), Err: cause(ctx, err)}
}

func (a *Archive) pushTo(ctx context.Context, i int, f *File) (Outcome, *ConflictError, error) {
	if err := a.identify(ctx, f); err != nil {
		return Failed, nil, err
	}
	e := a.epoch(i, f.systemID())
	name := f.Name()
	head, err := e.WALHead(ctx, name)
	var lacks *repo.Repository
	switch {
	case err == nil:
		if same, err := f.is(head); same || err != nil {
			return presentUnless(err), nil, err
		}
	case absent(err):
		lacks = a.opts.Repos[i]
	default:
		return Failed, nil, err
	}
	if err := f.examine(lacks); errors.Is(err, errLeftover) {
		a.opts.Log.Info("not stored", zap.String("repo", a.opts.Repos[i].Name()), zap.Error(err))
		return Nothing, nil, nil
	} else if err != nil {
		return Failed, nil, err
	}
	l := f.l
	if l.head.WALName() != name {
		head, err = e.WALHead(ctx, l.head.WALName())
	}
	return a.store(ctx, i, e, l, head, err)
}

// store puts an examined file into the i-th repository. head and err are what
// reading the head of what is stored under its name came to.
func (a *Archive) store(ctx context.Context, i int, e *repo.Epoch, l *local, head repo.WALHead, err error) (Outcome, *ConflictError, error) {
	// Each turn either ends or was overtaken by another writer, whose object
	// the next turn finds. An object that is there and not there, three times,
	// is the store's fault.
	const turns = 3
	for range turns {
		if err == nil {
			return a.settle(ctx, e, head, l)
		}
		if !absent(err) {
			return Failed, nil, err
		}
		if e, err = a.prepare(ctx, i, l); err != nil {
			return Failed, nil, err
		}
		branch, err2 := a.otherBranch(ctx, i, e, l)
		if err2 != nil {
			return Failed, nil, err2
		}
		if branch != nil {
			return a.putConflict(ctx, e, l, branch)
		}
		err = l.put(ctx, e)
		if err == nil {
			return Stored, nil, nil
		}
		if !errors.Is(err, repo.ErrExists) {
			return Failed, nil, err
		}
		head, err = e.WALHead(ctx, l.head.WALName())
	}
	return Failed, nil, fmt.Errorf("the store says that %s exists, and that it does not", l.head.WALName())
}

func presentUnless(err error) Outcome {
	if err != nil {
		return Failed
	}
	return Present
}

// absent reports whether err says that there is no such object, and nothing
// worse.
func absent(err error) bool {
	return errors.Is(err, repo.ErrNotFound) && !errors.Is(err, repo.ErrIntegrity)
}

// cause adds why ctx ended to the error that came of it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w: %w", err, c)
	}
	return err
}

func (a *Archive) log(result Result) {
	for _, r := range result.Repos {
		at := []zap.Field{zap.String("repo", r.Repo), zap.Stringer("file", result.Name)}
		switch {
		case r.Err != nil:
			a.opts.Log.Warn("not archived", append(at, zap.Error(r.Err))...)
		default:
			a.opts.Log.Debug("archived", append(at, zap.Stringer("outcome", r.Outcome))...)
		}
	}
}
