package repo

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"
)

// KeyProbe says what the keys at hand are good for.
type KeyProbe struct {
	Recipients         []string // who can read everything that is written from now on
	MetadataRecipients []string // who can read metadata, besides
	ReadsData          bool     // there is an identity, and it decrypted what was encrypted
	ReadsMetadata      bool
}

// SameAs reports whether the recipients are those of a marker, in any order.
func (p KeyProbe) SameAs(m *MarkerEncryption) bool {
	return m != nil && sameSet(p.Recipients, m.Recipients) && sameSet(p.MetadataRecipients, m.MetadataRecipients)
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// ProbeKeys encrypts something with the keys of an encrypted repository and
// decrypts it with the identities that are there. It asks nothing of the store.
func (r *Repository) ProbeKeys() (KeyProbe, error) {
	if r.keys == nil {
		return KeyProbe{}, fmt.Errorf("try the keys of %s: it is not encrypted: %w", r.name, ErrNoIdentity)
	}
	p := KeyProbe{Recipients: r.keys.data.names, MetadataRecipients: r.keys.extraNames}
	var err error
	if p.ReadsData, err = r.keys.data.roundTrip(); err != nil {
		return p, fmt.Errorf("try the data keys of %s: %w", r.name, err)
	}
	if p.ReadsMetadata, err = r.keys.metadata.roundTrip(); err != nil {
		return p, fmt.Errorf("try the metadata keys of %s: %w", r.name, err)
	}
	return p, nil
}

// roundTrip encrypts and, if there is an identity, decrypts.
func (s *keySet) roundTrip() (reads bool, err error) {
	plain := make([]byte, 64)
	if _, err := rand.Read(plain); err != nil {
		return false, err
	}
	b, err := s.encrypt(plain)
	if err != nil || len(s.identities) == 0 {
		return false, err
	}
	d, err := age.Decrypt(bytes.NewReader(b), s.identities...)
	if err != nil {
		return false, err
	}
	got, err := io.ReadAll(d)
	if err == nil && !bytes.Equal(got, plain) {
		err = fmt.Errorf("decrypted to something else")
	}
	return err == nil, err
}
