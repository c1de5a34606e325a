package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo/object"
)

// Copying a backup into another repository.
//
// The copy has the label of the original, and its packs under the same numbers
// where they are its own; packs that it references are either those of the copy
// of its parent, or become its own. Writing it is like writing a backup: under
// the lease of the label; packs, manifest, summary, in this order. What differs
// is that a killed copy goes on under the same label: its packs are what any
// later copy would store under these keys, and are compared before they count.

// spill is the number from which on packs are stored whose own number is taken
// by something else: remains of a killed backup with the same label.
const spill = 1 << 31

// ContinueCopy begins a copy of a backup, or goes on with one that was killed.
// Until Commit or Leave it holds the lease of the label; wait bounds how long
// to wait for it. ErrExists: the backup is there. ErrBusy: another copies it.
func (e *Epoch) ContinueCopy(ctx context.Context, label Label, o LeaseOptions) (*BackupWriter, error) {
	o.What = "copying " + string(label)
	lock, err := e.r.LockLabel(ctx, label, o)
	if err != nil {
		return nil, fmt.Errorf("copy backup %s to %s: %w", label, e.r.name, err)
	}
	b := &BackupWriter{e: e, label: label, lock: lock, known: map[packName]int{}, copied: true, next: spill}
	if err = b.beginCopy(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("copy backup %s to %s: %w", label, e.r.name, err), lock.Release(context.WithoutCancel(ctx)))
	}
	return b, nil
}

func (b *BackupWriter) beginCopy(ctx context.Context) error {
	_, err := b.e.r.store.Stat(ctx, b.e.summaryKey(b.label))
	if err == nil {
		return ErrExists
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	// The manifest of a killed copy names packs as that one had them.
	return b.e.r.store.Delete(ctx, b.e.manifestKey(b.label))
}

// LeaveCopy gives a copy up and leaves what is stored, so that the next one can
// go on.
func (b *BackupWriter) LeaveCopy(ctx context.Context) {
	if !b.done {
		b.finish()
		b.releaseMarks(ctx)
	}
}

// CopyPack stores a pack of another repository as the backup's own, under the
// given number if that is free or holds the same already, and returns the id
// that chunks name it by. Many goroutines may call it. *DamageError: the
// original is not what its manifest says.
func (b *BackupWriter) CopyPack(ctx context.Context, from *Epoch, ref PackRef, number uint32) (id int, err error) {
	b.mu.Lock()
	id = len(b.packs)
	b.packs = append(b.packs, packState{})
	b.mu.Unlock()
	for {
		stored, err := b.copyPack(ctx, from, ref, id, number)
		if err != nil {
			return 0, err
		}
		if stored {
			return id, nil
		}
		b.e.r.log.Info("the number of the pack is taken by another", zap.String("label", string(b.label)), zap.Uint32("number", number))
		b.mu.Lock()
		number = b.next
		b.next++
		b.mu.Unlock()
	}
}

// copyPack is false if something else is under that number.
func (b *BackupWriter) copyPack(ctx context.Context, from *Epoch, ref PackRef, id int, number uint32) (stored bool, err error) {
	plain, err := from.readPack(ctx, ref)
	if err != nil {
		return false, err
	}
	defer plain.Close()
	key := b.e.packKey(b.label, number)
	body := &hashingReader{r: plain, h: sha256.New()}
	if keys := b.e.r.keys; keys != nil {
		if body.r, err = age.EncryptReader(plain, keys.data.recipients...); err != nil {
			return false, fmt.Errorf("encrypt %s: %w", key, err)
		}
	}
	mine := PackRef{ID: id, Label: b.label, Number: number, Plain: ref.Plain}
	_, err = b.e.r.store.Put(ctx, key, body, object.PutOptions{IfAbsent: true})
	switch {
	case err == nil:
		mine.Size = body.n
		body.h.Sum(mine.SHA256[:0])
	case errors.Is(err, ErrExists):
		if mine, err = b.samePack(ctx, from, ref, mine); err != nil || mine.Size == 0 {
			return false, err
		}
	default:
		return false, fmt.Errorf("store %s: %w", key, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.packs[id] = packState{ref: mine, ready: true}
	b.size += mine.Size
	return true, nil
}

// samePack fills in a pack that is there already, if it is the copy of an
// original; else Size is 0. Both are read.
func (b *BackupWriter) samePack(ctx context.Context, from *Epoch, ref, mine PackRef) (PackRef, error) {
	key := b.e.packKey(mine.Label, mine.Number)
	body, err := b.e.r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return PackRef{}, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	src := &sourceReader{r: body}
	stored := &hashingReader{r: src, h: sha256.New()}
	var there io.Reader = stored
	if b.e.r.Encrypted() {
		there, err = b.e.r.decrypt(ctx, key, &sourceReader{r: stored}, true)
		if errors.Is(err, ErrNoIdentity) || errors.Is(err, ErrIntegrity) {
			return PackRef{}, nil // nobody can tell here: store it once more
		}
		if err != nil {
			return PackRef{}, err
		}
	}
	original, err := from.readPack(ctx, ref)
	if err != nil {
		return PackRef{}, err
	}
	defer original.Close()
	same, err := sameBytes(there, original)
	if src.err != nil {
		return PackRef{}, fmt.Errorf("read %s: %w", key, src.err)
	}
	if err != nil || !same {
		// Damage of what is there only means that it is not the same.
		return PackRef{}, original.err
	}
	if _, err := io.Copy(io.Discard, stored); err != nil {
		return PackRef{}, fmt.Errorf("read %s: %w", key, err)
	}
	mine.Size = stored.n
	stored.h.Sum(mine.SHA256[:0])
	return mine, nil
}

// sameBytes compares two streams to their end. An error of either is that they
// are not the same, and is returned.
func sameBytes(x, y io.Reader) (bool, error) {
	a, b := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, errX := io.ReadFull(x, a)
		m, errY := io.ReadFull(y, b)
		ended := func(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
		if errX != nil && !ended(errX) || errY != nil && !ended(errY) {
			return false, errors.Join(errX, errY)
		}
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if errX != nil || errY != nil {
			return errX != nil && errY != nil, nil
		}
	}
}

// readPack is the plain bytes of a pack. In a plain repository the stream ends
// with a *DamageError instead of io.EOF if they do not have the digest that the
// manifest says; in an encrypted one age vouches for every byte.
func (e *Epoch) readPack(ctx context.Context, ref PackRef) (*packStream, error) {
	p, err := e.OpenPack(ctx, ref)
	if err != nil {
		return nil, err
	}
	body, err := p.ReadRange(ctx, 0, ref.Plain)
	if err != nil {
		return nil, err
	}
	return &packStream{p: p, body: body, h: &hashingReader{r: body, h: sha256.New()}}, nil
}

type packStream struct {
	p    *PackReader
	body io.ReadCloser
	h    *hashingReader
	err  error // not io.EOF
}

func (s *packStream) Read(b []byte) (int, error) {
	n, err := s.h.Read(b)
	if err == io.EOF && s.p.fileKey == nil && [32]byte(s.h.h.Sum(nil)) != s.p.ref.SHA256 {
		err = damaged(s.p.key, "its SHA-256 is not the one in the manifest")
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *packStream) Close() error { return s.body.Close() }
