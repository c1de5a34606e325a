// Package object stores bytes under keys.
//
// It is the lowest layer of a repository: a [Store] knows nothing of WAL,
// backups or PostgreSQL. There is one driver per kind of place (packages s3,
// gcs, azure, filesystem and memory below this one) and one wrapper per
// concern (prefix, retry, limit, faulty); wrappers take a Store and are a
// Store, so they stack in any order.
//
// What every driver promises, and the conformance suite (package storetest)
// checks:
//
//   - A Put is atomic: a key has either its whole old content, its whole new
//     content, or does not exist. A Put that failed, was cancelled, or was
//     killed leaves the key as it was.
//   - A Put that returned nil is durable and visible to every reader, and to
//     List, at once; a Delete that returned nil is durable too.
//   - An object that was created once and that anyone has seen (by Get, Stat,
//     List, or as the ErrExists of a Put) is durable: who finds that the work
//     is done may rely on it, even if its writer died before it returned.
//   - Of N writers that race with [PutOptions.IfAbsent] for one absent key
//     exactly one succeeds; the others get [ErrExists].
//   - List yields keys in ascending byte order.
//
// Keys are flat names to a cloud but paths to a file system, which cannot hold
// both "a" and "a/b". So no key may be a directory prefix of another: what
// happens to such a pair is not defined (a file system refuses the second one,
// clouds keep both).
//
// What is not defined either: what a Get that runs while its key is replaced or
// deleted returns after its first bytes (callers check digests), and how long
// the remains of a failed multipart upload stay in the bucket (drivers abort
// what they can; a lifecycle rule of the bucket removes the rest).
package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Errors that callers branch on. Drivers wrap them with the key and the place;
// test with errors.Is.
var (
	// ErrNotFound: no object under that key.
	ErrNotFound = errors.New("object not found")
	// ErrExists: a Put with IfAbsent found the key taken.
	ErrExists = errors.New("object exists already")
	// ErrChanged: a Put with IfMatch found another version than the one named.
	ErrChanged = errors.New("object was changed by another writer")
	// ErrDenied: the store refused the credentials or the permission.
	// Retrying does not help.
	ErrDenied = errors.New("access denied by the store")
	// ErrBadKey: the key breaks the rules of [CheckKey].
	ErrBadKey = errors.New("not a valid object key")
	// ErrBadRange: a Get whose offset lies beyond the end of the object.
	ErrBadRange = errors.New("range outside the object")
	// ErrSize: the body of a Put yielded another number of bytes than
	// [PutOptions.Size] says.
	ErrSize = errors.New("body has another size than announced")
)

// Info describes one stored object.
type Info struct {
	Key  string
	Size int64 // bytes as stored
	// Modified is the store's own clock, not ours; at least to the second.
	Modified time.Time
	// Version changes with every Put of other bytes under the key (S3 and
	// Azure: ETag, GCS: generation); a Put of the same bytes may keep it (S3).
	// Opaque; only good for [PutOptions.IfMatch]. Never empty from Put and
	// Stat; may be empty from List.
	Version string
}

// PutOptions are the conditions and hints of one Put. The zero value
// overwrites unconditionally.
type PutOptions struct {
	// IfAbsent makes the Put fail with ErrExists when the key exists.
	IfAbsent bool
	// IfMatch, if not empty, makes the Put fail with ErrChanged unless the
	// key's current version is this one (also when the key is gone). Not
	// together with IfAbsent.
	IfMatch string
	// Size is the exact number of bytes that body will yield, or 0 when it is
	// not known. With a known small size drivers use a single request. A body
	// that yields another number of bytes makes the Put fail with ErrSize.
	Size int64
}

// ListOptions narrow a List.
type ListOptions struct {
	// After skips keys up to and including this one.
	After string
	// NamesOnly: of each Info only the Key is wanted, and the rest may be zero.
	// A file system need not look at each file then.
	NamesOnly bool
}

// Reader is the half of a Store that changes nothing.
type Reader interface {
	// Get opens the bytes [offset, offset+length) of an object. length -1
	// means to the end. A range that starts inside the object and ends beyond
	// it is cut at the end; offset == size and length 0 yield no bytes; an
	// offset beyond the size, or a negative one, is ErrBadRange. Errors:
	// ErrNotFound, ErrBadRange, ErrDenied, ErrBadKey. The returned reader
	// reports a broken transfer as an error, never as a premature io.EOF, and
	// fails once ctx is done. Close it.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes an object. Errors: ErrNotFound, ErrDenied, ErrBadKey.
	Stat(ctx context.Context, key string) (Info, error)
	// List calls fn for every key that starts with prefix, in ascending byte
	// order, and stops at fn's first error, which it returns as it is. prefix
	// is a plain string prefix and may end in mid-name; "" lists all. It is not
	// a snapshot: keys put or deleted meanwhile may or may not be seen, all
	// others are, once. fn may use the Store.
	List(ctx context.Context, prefix string, opts ListOptions, fn func(Info) error) error
}

// Store is bytes under keys. See the package comment for what it promises.
// All methods may be called from many goroutines.
type Store interface {
	Reader
	// Put stores what body yields under key, reading body once, to its end,
	// without holding more of it in memory than a few parts. If body is an
	// io.Seeker, Put may seek back to where it stood and try again; Put never
	// reads body after it returned.
	// Errors: ErrExists, ErrChanged, ErrDenied, ErrBadKey, ErrSize, body's own
	// error (wrapped), in which case nothing is stored. After any other error
	// (a lost answer) the object may be there, whole; package retry finds out.
	Put(ctx context.Context, key string, body io.Reader, opts PutOptions) (Info, error)
	// Delete removes keys; one that does not exist is not an error. It uses
	// the cloud's batch request where there is one, and goes on after a key
	// that failed; the error then joins what failed, naming each key.
	Delete(ctx context.Context, keys ...string) error
	// String names the place for people ("s3://bucket"), without secrets.
	fmt.Stringer
	// Close releases connections. The Store is not used after it.
	Close() error
}
