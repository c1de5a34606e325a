package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/walkeep/walkeep/repo/object"
)

// sourceReader remembers how reading from the store failed, so that a broken
// transfer is never taken for a damaged object.
type sourceReader struct {
	r   io.Reader
	err error // other than io.EOF
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// failure explains an error that came out of decoding what s yields: the
// store's own, or damage.
func (s *sourceReader) failure(key string, err error) error {
	if s.err != nil {
		return fmt.Errorf("read %s: %w", key, s.err)
	}
	return asDamage(key, err)
}

func asDamage(key string, err error) error {
	var d *DamageError
	if errors.As(err, &d) || errors.Is(err, ErrNoIdentity) {
		return err
	}
	return &DamageError{Key: key, Why: err.Error()}
}

// identities returns the identities for data or metadata, or ErrNoIdentity.
func (r *Repository) identities(key string, secret bool) ([]age.Identity, error) {
	switch {
	case r.keys == nil:
		return nil, fmt.Errorf("read %s: it is encrypted, and no encryption is configured for %s: %w", key, r.name, ErrNoIdentity)
	case secret && !r.keys.CanReadData():
		return nil, fmt.Errorf("read %s: needs the identity of %s: %w", key, strings.Join(r.keys.data.names, " or "), ErrNoIdentity)
	case !secret && !r.keys.CanReadMetadata():
		return nil, fmt.Errorf("read %s: needs the identity of %s: %w", key, strings.Join(r.keys.metadata.names, " or "), ErrNoIdentity)
	case secret:
		return r.keys.data.identities, nil
	}
	return r.keys.metadata.identities, nil
}

// decrypt opens an age file. secret says whether it is data or metadata.
func (r *Repository) decrypt(ctx context.Context, key string, src *sourceReader, secret bool) (io.Reader, error) {
	ids, err := r.identities(key, secret)
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(src, ids...)
	if err != nil {
		return nil, r.decryptFailure(ctx, key, src, secret, err)
	}
	return plain, nil
}

// decryptFailure explains why an age header could not be opened. No identity
// matching is a question of configuration, or a flipped bit in the header: it
// is damage if one of our identities is among those the repository was made
// for.
func (r *Repository) decryptFailure(ctx context.Context, key string, src *sourceReader, secret bool, err error) error {
	var none *age.NoIdentityMatchError
	if src.err != nil || !errors.As(err, &none) {
		return src.failure(key, err)
	}
	own := r.keys.metadata.own
	if secret {
		own = r.keys.data.own
	}
	m, markerErr := r.readMarker(ctx)
	if markerErr != nil || m.Encryption == nil {
		return fmt.Errorf("read %s: encrypted to others than %s: %w", key, strings.Join(own, ", "), ErrNoIdentity)
	}
	names := m.Encryption.Recipients
	if !secret {
		names = slices.Concat(names, m.Encryption.MetadataRecipients)
	}
	if slices.ContainsFunc(own, func(n string) bool { return slices.Contains(names, n) }) {
		return damaged(key, "it cannot be decrypted, although the repository was made for an identity that is configured")
	}
	return fmt.Errorf("read %s: needs the identity of %s: %w", key, strings.Join(names, " or "), ErrNoIdentity)
}

// maxSmall bounds the small objects: marker, epochs, summaries, leases.
const maxSmall = 4 << 20

// readSmall reads a whole small object.
func (r *Repository) readSmall(ctx context.Context, key string) ([]byte, error) {
	body, err := r.store.Get(ctx, key, 0, maxSmall+1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if len(b) > maxSmall {
		return nil, damaged(key, "it is larger than %d bytes", maxSmall)
	}
	return b, nil
}

// getSealed reads sealed JSON, as it is or encrypted as metadata.
func (r *Repository) getSealed(ctx context.Context, key string, v any, encrypted bool) error {
	b, err := r.readSmall(ctx, key)
	if err != nil {
		return err
	}
	if encrypted || bytes.HasPrefix(b, []byte(ageIntro)) {
		src := &sourceReader{r: bytes.NewReader(b)}
		plain, err := r.decrypt(ctx, key, src, false)
		if err != nil {
			return err
		}
		if b, err = io.ReadAll(plain); err != nil {
			return asDamage(key, err)
		}
	}
	if err := unseal(b, v); err != nil {
		return asDamage(key, err)
	}
	return nil
}

// putSealed stores sealed JSON where there is nothing yet.
func (r *Repository) putSealed(ctx context.Context, key string, v any, encrypted bool) (int64, error) {
	b, err := seal(v)
	if err != nil {
		return 0, err
	}
	if encrypted {
		if b, err = r.keys.metadata.encrypt(b); err != nil {
			return 0, err
		}
	}
	_, err = r.store.Put(ctx, key, bytes.NewReader(b), object.PutOptions{IfAbsent: true, Size: int64(len(b))})
	if errors.Is(err, ErrExists) && r.sameBytes(ctx, key, b) {
		err = nil // an earlier try of ours got through, and its answer got lost
	}
	if err != nil {
		return 0, fmt.Errorf("store %s: %w", key, err)
	}
	return int64(len(b)), nil
}

func (r *Repository) sameBytes(ctx context.Context, key string, want []byte) bool {
	got, err := r.readSmall(ctx, key)
	return err == nil && bytes.Equal(got, want)
}

// checkFormat refuses what a newer version wrote.
func checkFormat(key string, format int) error {
	if format < 1 || format > Format {
		return fmt.Errorf("read %s: format %d, this walkeep reads up to %d: %w", key, format, Format, ErrMismatch)
	}
	return nil
}
