package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// RemainsUsable is for how long after the last part of its journal a killed
// backup is used by another one; RemainsKept for how long garbage collection
// leaves it. The time between is for clocks that differ, and for a collection
// that was stopped in mid-work: nobody begins to use what is being deleted.
const (
	RemainsUsable = 48 * time.Hour
	RemainsKept   = 72 * time.Hour
)

// Remains is what a killed backup left: see journal.
type Remains struct {
	Label Label
	// Last is when the last part of the journal was stored, by the clock of
	// the store.
	Last time.Time
	Size int64 // of the journal, which follows that of what it speaks of

	parts []journalPart
}

// Serves reports whether a backup with the label next can use these remains, by
// their labels: both are of one type and, unless full, of one full backup. And
// none of the labels of the backups that exist makes them superfluous.
func (r Remains) Serves(next Label, existing []Label) bool {
	return r.Label.Type() == next.Type() && r.Label.Full().sameFull(next) && !Superseded(r.Label, existing)
}

// sameFull reports whether next builds on the full backup full, or is one too.
func (full Label) sameFull(next Label) bool { return next.Type() == Full || next.Full() == full }

// Superseded reports whether there is a later backup than a killed one, of a
// type that leaves no reason to take up the killed one: a full one, or, for what
// is not full, any on the same full.
func Superseded(killed Label, existing []Label) bool {
	for _, l := range existing {
		if l.Time().After(killed.Time()) && (l.Type() == Full || killed.Type() != Full && l.Full() == killed.Full() && (killed.Type() != Differential || l.Type() == Differential)) {
			return true
		}
	}
	return false
}

type journalPart struct {
	key    string
	number uint32
	size   int64
	sha256 string
}

// Remains lists the backups that have a journal: those that were killed, those
// that are under way, and those whose journal was not deleted yet.
func (e *Epoch) Remains(ctx context.Context) ([]Remains, error) {
	var all []Remains
	prefix := e.prefix("resume")
	err := e.list(ctx, prefix, "", func(i object.Info) error {
		label, p, ok := parseJournalKey(i.Key[len(prefix):])
		if !ok {
			return nil
		}
		p.key, p.size = i.Key, i.Size
		if n := len(all); n == 0 || all[n-1].Label != label {
			all = append(all, Remains{Label: label})
		}
		r := &all[len(all)-1]
		r.parts = append(r.parts, p)
		r.Size += i.Size
		if i.Modified.After(r.Last) {
			r.Last = i.Modified
		}
		return nil
	})
	return all, err
}

// parseJournalKey reads what comes after "resume/".
func parseJournalKey(name string) (Label, journalPart, bool) {
	text, rest, _ := strings.Cut(name, "/")
	label, err := ParseLabel(text)
	number, digest, ok := strings.Cut(rest, ".")
	if err != nil || !ok || len(number) != 8 || !isDigest(digest) {
		return "", journalPart{}, false
	}
	n, err := strconv.ParseUint(number, 16, 32)
	if err != nil || fmt.Sprintf("%08x", n) != number {
		return "", journalPart{}, false
	}
	return label, journalPart{number: uint32(n), sha256: digest}, true
}

// OpenRemains opens the journal of a killed backup: it reads all parts, checks
// their digests, and makes sure that all packs that they speak of are there.
// *DamageError: it is of no use. Close it.
func (e *Epoch) OpenRemains(ctx context.Context, r Remains) (*RemainsReader, error) {
	parts := slices.Clone(r.parts)
	slices.SortFunc(parts, func(x, y journalPart) int { return cmp.Compare(x.number, y.number) })
	file, err := e.r.tempFile()
	if err != nil {
		return nil, err
	}
	m := &RemainsReader{e: e, ctx: ctx, label: r.Label, file: file}
	if err := m.fetch(parts); err != nil {
		file.Close()
		return nil, err
	}
	return m, nil
}

// RemainsReader reads the journal of a killed backup, entry by entry, in the
// order of manifests. An entry can come twice, then first with the beginning of
// a file.
type RemainsReader struct {
	e        *Epoch
	ctx      context.Context
	label    Label
	file     *os.File
	sections []*io.SectionReader
	keys     []string
	header   Header
	packs    map[int]PackRef // of all parts, by nothing of meaning
	part     *ManifestReader // nil: before the first
	next     int             // index of the part after it
}

func (m *RemainsReader) fetch(parts []journalPart) error {
	if len(parts) == 0 {
		return &DamageError{Key: m.e.prefix("resume") + string(m.label) + "/", Why: "it has no parts", Err: ErrNotFound}
	}
	var at int64
	for i, p := range parts {
		if p.number != uint32(i) {
			return damaged(p.key, "a part of the journal before it is missing")
		}
		n, sum, err := m.e.r.fetch(m.ctx, p.key, p.size, m.file)
		if err != nil {
			return err
		}
		if n != p.size || sum != p.sha256 {
			return damaged(p.key, "its SHA-256 is not the one in its name")
		}
		m.sections = append(m.sections, io.NewSectionReader(m.file, at, p.size))
		m.keys = append(m.keys, p.key)
		at += p.size
	}
	m.packs = map[int]PackRef{}
	for i := range m.sections {
		part, err := m.open(i)
		if err != nil {
			return err
		}
		h := part.Header()
		if i > 0 && h.StartLSN != m.header.StartLSN {
			return damaged(m.keys[i], "it is of another backup than the part before it")
		}
		m.header = h
		for _, p := range part.Packs() {
			m.packs[len(m.packs)] = p
		}
	}
	return m.CheckPacks()
}

// CheckPacks makes sure that all packs that the journal speaks of are there.
func (m *RemainsReader) CheckPacks() error { return m.e.CheckPacks(m.ctx, m.packs) }

// Labels are those of other backups, killed ones or not, whose packs it names.
func (m *RemainsReader) Labels() []Label {
	return sortedLabels(slices.Collect(maps.Values(m.packs)), m.label)
}

func (m *RemainsReader) open(i int) (*ManifestReader, error) {
	r := &ManifestReader{
		r: m.e.r, ctx: m.ctx, key: m.keys[i], section: m.sections[i], partial: true,
		want: Summary{Label: m.label, SystemID: m.e.id}, names: map[string]string{},
	}
	return r, r.Rewind()
}

// Header is what the last part says of the backup. StopLSN is not where the
// backup stopped, but what WAL had come to when the part was written.
func (m *RemainsReader) Header() Header { return m.header }

// Next returns the next entry and the packs that its chunks name, or io.EOF.
// Its slices are valid until the following call.
func (m *RemainsReader) Next() (FileEntry, map[int]PackRef, error) {
	for {
		if m.part == nil {
			if m.next == len(m.sections) {
				return FileEntry{}, nil, io.EOF
			}
			part, err := m.open(m.next)
			if err != nil {
				return FileEntry{}, nil, err
			}
			m.part, m.next = part, m.next+1
		}
		f, err := m.part.Next()
		if errors.Is(err, io.EOF) {
			m.part = nil
			continue
		}
		return f, m.part.Packs(), err
	}
}

// Close removes the temporary file.
func (m *RemainsReader) Close() error { return m.file.Close() }

// DeleteJournal removes the journal of a backup.
func (e *Epoch) DeleteJournal(ctx context.Context, r Remains) error {
	// From the end, so that what is left of it begins at its beginning.
	for _, p := range slices.Backward(r.parts) {
		if err := e.r.store.Delete(ctx, p.key); err != nil {
			return fmt.Errorf("remove %s: %w", p.key, err)
		}
	}
	return nil
}

// UseRemains takes over what a killed backup left, until Commit, Abort or
// Leave: nobody deletes it meanwhile, and the killed backup itself, should it
// come to life again, finds that it is not its own any more. wait bounds how
// long to wait for a lease that may be a dead process's. ErrBusy: it was not.
// After Commit the journal is deleted; what is used of the packs is referenced
// by the summary.
func (b *BackupWriter) UseRemains(ctx context.Context, r Remains, wait time.Duration) error {
	lock, err := b.e.r.LockLabel(ctx, r.Label, LeaseOptions{What: "resuming " + string(r.Label) + " as " + string(b.label), Wait: wait})
	if err != nil {
		return fmt.Errorf("use what is left of backup %s in %s: %w", r.Label, b.e.r.name, err)
	}
	b.remains = append(b.remains, usedRemains{r, lock})
	return nil
}

// usedRemains is a killed backup whose packs are used.
type usedRemains struct {
	Remains
	lock *Lease
}

// checkRemains makes sure, at the last moment, that the packs of killed backups
// that are used were ours all the time, and are there.
func (b *BackupWriter) checkRemains(ctx context.Context, refs []PackRef) error {
	for _, u := range b.remains {
		packs := map[int]PackRef{}
		for _, p := range refs {
			if p.Label == u.Label {
				packs[p.ID] = p
			}
		}
		if len(packs) == 0 {
			continue
		}
		if err := u.lock.Check(ctx); err != nil {
			return fmt.Errorf("what is left of backup %s: %w", u.Label, err)
		}
		if err := b.e.CheckPacks(ctx, packs); err != nil {
			return err
		}
	}
	return nil
}

// remainsBytes is how much is stored in packs of killed backups that are used:
// nobody else accounts for them.
func (b *BackupWriter) remainsBytes(refs []PackRef) (n int64) {
	for _, p := range refs {
		for _, u := range b.remains {
			if p.Label == u.Label {
				n += p.Size
			}
		}
	}
	return n
}
