package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
)

// KeyOptions are age keys in text form, as the configuration and key files
// hold them: one per line, blank lines and lines that begin with '#' ignored.
type KeyOptions struct {
	Recipients         string // age1…: who can read everything
	Identity           string // AGE-SECRET-KEY-1…: of one of Recipients, and older ones; needed to restore
	MetadataRecipients string // who can read metadata, besides
	MetadataIdentity   string // of one of MetadataRecipients: the nodes' key
}

// Keys are what an encrypted repository is written and read with. Data
// (pages, WAL) is encrypted to the data recipients; metadata (manifests,
// summaries, heads of WAL objects) to these and to the metadata recipients.
type Keys struct {
	data       keySet
	metadata   keySet // all who can read metadata: data is part of it
	extraNames []string
}

// keySet is who can read something, and with which identities we can.
type keySet struct {
	recipients []age.Recipient
	names      []string // of the recipients: age1…
	identities []age.Identity
	own        []string // recipients of the identities
}

func (s *keySet) add(other keySet) {
	for i, name := range other.names {
		if !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
			s.recipients = append(s.recipients, other.recipients[i])
		}
	}
	for i, name := range other.own {
		if !slices.Contains(s.own, name) {
			s.own = append(s.own, name)
			s.identities = append(s.identities, other.identities[i])
		}
	}
}

// NewKeys parses keys. Recipients are derived from the identities where only
// these are given, so that one identity is the simplest whole setting.
func NewKeys(o KeyOptions) (*Keys, error) {
	data, err := parseKeySet(o.Recipients, o.Identity)
	if err != nil {
		return nil, fmt.Errorf("data keys: %w", err)
	}
	if len(data.recipients) == 0 {
		return nil, errors.New("encryption needs recipients, or an identity to derive them from")
	}
	extra, err := parseKeySet(o.MetadataRecipients, o.MetadataIdentity)
	if err != nil {
		return nil, fmt.Errorf("metadata keys: %w", err)
	}
	k := &Keys{data: data}
	k.metadata.add(data)
	k.metadata.add(extra)
	k.extraNames = extra.names
	// age refuses some mixtures of recipients: better now than in a backup.
	if _, err := age.Encrypt(io.Discard, k.metadata.recipients...); err != nil {
		return nil, fmt.Errorf("these recipients cannot be used together: %w", err)
	}
	return k, nil
}

// CanReadData reports whether there is an identity for data (to restore).
func (k *Keys) CanReadData() bool { return len(k.data.identities) > 0 }

// CanReadMetadata reports whether there is an identity for metadata.
func (k *Keys) CanReadMetadata() bool { return len(k.metadata.identities) > 0 }

func parseKeySet(recipients, identities string) (s keySet, err error) {
	if hasKeys(identities) {
		// The library's message can quote the line: not with secrets.
		if s.identities, err = age.ParseIdentities(strings.NewReader(identities)); err != nil {
			return s, errors.New("not an age identity (expected lines AGE-SECRET-KEY-1…)")
		}
	}
	var derived []age.Recipient
	for _, id := range s.identities {
		r, err := recipientOf(id)
		if err != nil {
			return s, err
		}
		derived = append(derived, r)
		s.own = append(s.own, nameOf(r))
	}
	s.recipients = derived
	if hasKeys(recipients) {
		if s.recipients, err = age.ParseRecipients(strings.NewReader(recipients)); err != nil {
			return s, fmt.Errorf("age recipients: %w", err)
		}
	}
	for _, r := range s.recipients {
		s.names = append(s.names, nameOf(r))
	}
	if len(s.own) > 0 && !slices.ContainsFunc(s.own, func(n string) bool { return slices.Contains(s.names, n) }) {
		return s, fmt.Errorf("the identity is of %s, which is not among the recipients", strings.Join(s.own, ", "))
	}
	return s, nil
}

func hasKeys(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}

func recipientOf(id age.Identity) (age.Recipient, error) {
	switch id := id.(type) {
	case *age.X25519Identity:
		return id.Recipient(), nil
	case *age.HybridIdentity:
		return id.Recipient(), nil
	}
	return nil, fmt.Errorf("unsupported kind of age identity %T", id)
}

func nameOf(r age.Recipient) string {
	if s, ok := r.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", r)
}

// encrypt makes a small age file.
func (s *keySet) encrypt(plain []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, s.recipients...)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return b.Bytes(), nil
}

// ageIntro begins every age file.
const ageIntro = "age-encryption.org/v1\n"
