package archive

import (
	"errors"
	"fmt"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Errors that callers branch on with errors.Is.
var (
	// ErrRefused: the file must not be archived, in whatever repository; the
	// error is a *RefusedError.
	ErrRefused = errors.New("refused")
	// ErrNotArchived: every repository answered, and none has the file; for a
	// standby, none of those that answered.
	ErrNotArchived = errors.New("not archived in any repository")
)

// RefusedError says why a file was not archived at all.
type RefusedError struct {
	File string
	Err  error
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s is refused: %v", e.File, e.Err) }

// Unwrap makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Unwrap() []error { return []error{ErrRefused, e.Err} }

func refused(file, format string, args ...any) error {
	return &RefusedError{File: file, Err: fmt.Errorf(format, args...)}
}

// ConflictError says that a file is not what is archived under its name, or
// belongs to another branch of its timeline. It is kept under conflict/; what is
// archived was not touched. It comes with the outcome [Conflict], which is a
// success as far as archiving is concerned, and an alarm for people.
type ConflictError struct {
	Repo string
	Name repo.WALName
	// Stored is the SHA-256 of what is archived, hex; "" if the name is free and
	// only the timeline's number is taken.
	Stored string
	Local  string // SHA-256 of the file, hex
	// Timeline is not 0 if the number of the file's timeline is taken by
	// another timeline.
	Timeline pg.Timeline
	// Undecided: without the data identity nobody can tell whether only the
	// padding differs.
	Undecided bool
	// Damage, if what is archived cannot be read back whole, besides.
	Damage error
}

// History reports whether two servers chose the same number for their
// timelines: from here on each of them writes a history of its own.
func (e *ConflictError) History() bool { return e.Name.Kind == pg.FileHistory }

// Unwrap makes errors.Is(err, repo.ErrIntegrity) true if what is archived is
// damaged.
func (e *ConflictError) Unwrap() error { return e.Damage }

func (e *ConflictError) Error() string {
	if e.Damage != nil {
		sound := *e
		sound.Damage = nil
		return fmt.Sprintf("%s; besides, what is archived is damaged: %v", sound.Error(), e.Damage)
	}
	kept := fmt.Sprintf("this file (xxh3 %s) is kept under conflict/, what was archived stays", e.Local)
	switch {
	case e.History():
		return fmt.Sprintf("TWO SERVERS CHOSE TIMELINE %d: %s has another %s (xxh3 %s); %s. From now on all WAL of the server that this file "+
			"comes from goes under conflict/: decide which of them is the cluster, and stop the other",
			e.Name.Timeline(), e.Repo, e.Name.Name, e.Stored, kept)
	case e.Timeline != 0:
		return fmt.Sprintf("%s is of another timeline %d than the one in %s; %s", e.Name, e.Timeline, e.Repo, kept)
	case e.Undecided:
		return fmt.Sprintf("%s has %s with other content (xxh3 %s), perhaps only other padding; %s", e.Repo, e.Name, e.Stored, kept)
	}
	return fmt.Sprintf("%s has %s with other content (xxh3 %s): two servers write this timeline; %s", e.Repo, e.Name, e.Stored, kept)
}

// alert is the constant part of the message, to look for in logs.
func (e *ConflictError) alert() string {
	if e.History() {
		return "two servers chose the same timeline"
	}
	return "conflicting WAL"
}

// RepoError is what went wrong with one repository.
type RepoError struct {
	Repo string
	Err  error
}

func (e *RepoError) Error() string { return fmt.Sprintf("%s: %v", e.Repo, e.Err) }
func (e *RepoError) Unwrap() error { return e.Err }
