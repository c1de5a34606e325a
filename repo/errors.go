package repo

import (
	"errors"
	"fmt"

	"github.com/walkeep/walkeep/repo/object"
)

// Errors that callers branch on with errors.Is.
var (
	// ErrNotFound: nothing is stored under that name.
	ErrNotFound = object.ErrNotFound
	// ErrExists: the name is taken. Nothing was overwritten.
	ErrExists = object.ErrExists
	// ErrIntegrity: what is stored is damaged; the error is a *DamageError.
	ErrIntegrity = errors.New("stored data is damaged")
	// ErrBusy: another run holds the lease; the error is a *BusyError.
	ErrBusy = errors.New("busy")
	// ErrLeaseLost: the lease could not be renewed, or another took it over.
	ErrLeaseLost = errors.New("lease lost")
	// ErrNoIdentity: the object is encrypted to recipients none of whose
	// identities is configured here.
	ErrNoIdentity = errors.New("no identity to decrypt with")
	// ErrChangedWhileRead: the body of a WAL object was not what its head
	// says; nothing was stored.
	ErrChangedWhileRead = errors.New("file changed while it was read")
	// ErrMismatch: the repository is another one than the configuration says
	// (another cluster, another format, plain instead of encrypted).
	ErrMismatch = errors.New("repository does not fit the configuration")
)

// DamageError says which stored object is damaged, and how that was found.
type DamageError struct {
	Key string // below the repository's prefix
	Why string
	Err error // what else errors.Is should find (ErrNotFound for a missing pack); may be nil
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("object %s is damaged: %s", e.Key, e.Why)
}

// Unwrap makes errors.Is(err, ErrIntegrity) true.
func (e *DamageError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrIntegrity}
	}
	return []error{ErrIntegrity, e.Err}
}

func damaged(key, format string, args ...any) error {
	return &DamageError{Key: key, Why: fmt.Sprintf(format, args...)}
}
