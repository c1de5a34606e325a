package transfer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo"
)

type packName struct {
	label  repo.Label
	number uint32
}

// packs copies the packs of a backup, or finds them in the copy of its parent,
// and returns what the writer calls each.
func (c *copying) packs(ctx context.Context, w *repo.BackupWriter, s repo.Summary, m *repo.ManifestReader) (map[int]int, error) {
	below, err := c.below(ctx, w, s)
	if err != nil {
		return nil, err
	}
	var refs []repo.PackRef
	total, largest := int64(0), uint32(0)
	ids := map[int]int{}
	for id, ref := range m.Packs() {
		if mine, ok := below[packName{ref.Label, ref.Number}]; ok && mine.Plain == ref.Plain {
			if ids[id], err = w.UsePack(mine); err != nil {
				return nil, err
			}
			continue
		}
		if ref.Label == s.Label {
			largest = max(largest, ref.Number+1)
		}
		refs = append(refs, ref)
		total += ref.Size
	}
	// The same order each time, so that a copy that was killed is found again.
	slices.SortFunc(refs, func(x, y repo.PackRef) int {
		return cmp.Or(cmp.Compare(x.Label, y.Label), cmp.Compare(x.Number, y.Number))
	})
	c.total += total
	c.Progress.Total(c.total)
	var mu sync.Mutex // guards ids and c.result
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.Workers)
	for _, ref := range refs {
		number := ref.Number
		if ref.Label != s.Label {
			number, largest = largest, largest+1
		}
		group.Go(func() error {
			id, err := w.CopyPack(ctx, c.from, ref, number)
			if err != nil {
				return err
			}
			c.Progress.Add(ref.Size)
			mu.Lock()
			defer mu.Unlock()
			ids[ref.ID] = id
			c.result.Packs++
			c.result.Bytes += ref.Size
			return nil
		})
	}
	return ids, group.Wait()
}

// below says which packs of the parent in the source are which in the target:
// those of which both manifests say the same, chunk by chunk. It also keeps the
// parent in the target from expiring. The target's parent may be a backup of its
// own that was taken into both repositories at once, whose packs are cut in
// another way; then none of them match, and the copy holds what it needs itself.
func (c *copying) below(ctx context.Context, w *repo.BackupWriter, s repo.Summary) (map[packName]repo.PackRef, error) {
	if s.Parent == "" {
		return nil, nil
	}
	there, err := w.UseParent(ctx, s.Parent)
	if err != nil {
		return nil, err
	}
	source, err := c.from.Summary(ctx, s.Parent)
	if err != nil {
		return nil, err
	}
	ours, err := fingerprints(ctx, c.from, source)
	if err != nil {
		return nil, err
	}
	theirs, err := fingerprints(ctx, c.to, there)
	if err != nil {
		return nil, err
	}
	by := map[[16]byte]repo.PackRef{}
	for _, p := range theirs {
		by[p.sum] = p.ref
	}
	same := map[packName]repo.PackRef{}
	for _, p := range ours {
		if ref, ok := by[p.sum]; ok {
			same[packName{p.ref.Label, p.ref.Number}] = ref
		}
	}
	return same, nil
}

type fingerprint struct {
	ref repo.PackRef
	sum [16]byte
}

// fingerprints digests, for each pack that a backup uses, all that its manifest
// says of the chunks in it, in the order of the manifest: where they are, and
// what they hold by their own digests.
func fingerprints(ctx context.Context, e *repo.Epoch, s repo.Summary) (map[int]*fingerprint, error) {
	m, err := e.OpenManifest(ctx, s)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	all := map[int]*fingerprint{}
	for id, ref := range m.Packs() {
		all[id] = &fingerprint{ref: ref}
		binary.LittleEndian.PutUint64(all[id].sum[:], uint64(ref.Plain))
	}
	var b [16 + 8 + 8 + 16 + 4]byte
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range f.Chunks {
			c := &f.Chunks[i]
			p := all[c.Pack]
			copy(b[:], p.sum[:])
			binary.LittleEndian.PutUint64(b[16:], uint64(c.Offset))
			binary.LittleEndian.PutUint64(b[24:], uint64(c.Stored)<<32|uint64(c.Plain))
			copy(b[32:], c.XXH3[:])
			binary.LittleEndian.PutUint32(b[48:], c.CRC)
			p.sum = xxh3.Hash128(b[:]).Bytes()
		}
	}
}

// addFiles writes the entries of the original with the packs of the copy.
func addFiles(w *repo.BackupWriter, m *repo.ManifestReader, ids map[int]int) error {
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Chunks = slices.Clone(f.Chunks)
		for i := range f.Chunks {
			id, ok := ids[f.Chunks[i].Pack]
			if !ok {
				return fmt.Errorf("file %q is in a pack that was not copied", f.Path)
			}
			f.Chunks[i].Pack = id
		}
		if err := w.AddFile(f); err != nil {
			return err
		}
	}
}
