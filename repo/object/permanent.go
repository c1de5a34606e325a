package object

import (
	"errors"
	"time"
)

// How drivers tell package retry what an error means. An error is worth another
// try unless it is one of the sentinels of this package or was marked with
// [Permanent]; drivers mark what they know to be final (no such bucket, a
// malformed request, a full disk) and leave all doubt to a retry. When the store
// said when to come back, the driver says so with [Throttled].

// Permanent marks err as one that another try does not cure. nil stays nil;
// text, errors.Is and errors.As are those of err.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// IsPermanent reports whether another try is pointless: err is, or wraps, one
// of this package's sentinels or an error marked with [Permanent]. Errors of a
// context are not: a driver's own timeout looks just like the caller's, so ask
// the context itself.
func IsPermanent(err error) bool {
	var marked *permanentError
	if errors.As(err, &marked) {
		return true
	}
	for _, final := range []error{ErrNotFound, ErrExists, ErrChanged, ErrDenied, ErrBadKey, ErrBadRange, ErrSize} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// Throttled marks err as the store's request to come back, after the given time
// or, when that is not positive, when the caller sees fit.
func Throttled(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &throttledError{err, max(after, 0)}
}

type throttledError struct {
	error
	after time.Duration
}

func (e *throttledError) Unwrap() error             { return e.error }
func (e *throttledError) RetryAfter() time.Duration { return e.after }

// RetryAfter reports whether err is, or wraps, one that says when to come back
// (it has a method RetryAfter() time.Duration), and after what time; 0 when the
// store asked for patience without a figure.
func RetryAfter(err error) (time.Duration, bool) {
	var t interface {
		error
		RetryAfter() time.Duration
	}
	if !errors.As(err, &t) {
		return 0, false
	}
	return t.RetryAfter(), true
}
