package repo

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/walkeep/walkeep/repo/object"
)

// CheckPacks makes sure that the packs of a manifest are in the repository and
// as long as the manifest says, without reading them: one listing for each
// backup that stored some. *DamageError names the first that is not.
func (e *Epoch) CheckPacks(ctx context.Context, packs map[int]PackRef) error {
	sizes := map[string]int64{}
	labels := map[Label]bool{}
	for _, p := range packs {
		sizes[e.packKey(p.Label, p.Number)] = p.Size
		labels[p.Label] = true
	}
	var wrong error
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		prefix := e.backupPrefix(label)
		err := e.r.store.List(ctx, prefix, object.ListOptions{}, func(i object.Info) error {
			want, ok := sizes[i.Key]
			if ok && i.Size != want && wrong == nil {
				wrong = damaged(i.Key, "it has %d bytes, not the %d that the manifest says", i.Size, want)
			}
			delete(sizes, i.Key)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list the packs of %s: %w", label, err)
		}
	}
	if wrong == nil && len(sizes) > 0 {
		key := slices.Min(slices.Collect(maps.Keys(sizes)))
		wrong = &DamageError{Key: key, Why: "it is missing", Err: ErrNotFound}
	}
	return wrong
}
