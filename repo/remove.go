package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object"
)

// Deleting. What may be deleted, and in which order, package retention decides
// and explains; here is how.

const (
	// removeBatch is how many keys one request deletes, where the store can.
	removeBatch = 1000
	// removeWorkers is how many such requests run at a time.
	removeWorkers = 8
)

// BackupLabels lists the labels that have a summary: the backups that exist.
func (e *Epoch) BackupLabels(ctx context.Context) (labels []Label, err error) {
	prefix := e.prefix("summary")
	err = e.list(ctx, prefix, "", func(i object.Info) error {
		if label, err := ParseLabel(i.Key[len(prefix):]); err == nil {
			labels = append(labels, label)
		}
		return nil
	})
	return labels, err
}

// StoredLabels lists the labels below which a manifest or a pack is stored,
// with or without a summary. It takes one request a label, whatever the number
// of packs.
func (e *Epoch) StoredLabels(ctx context.Context) (labels []Label, err error) {
	prefix := e.prefix("backup")
	for after, more := "", true; more; {
		more = false
		err := e.list(ctx, prefix, after, func(i object.Info) error {
			name, _, _ := strings.Cut(i.Key[len(prefix):], "/")
			after, more = prefix+name+"/~", true // '~' is after all that keys hold here
			if label, err := ParseLabel(name); err == nil {
				labels = append(labels, label)
			}
			return errStop
		})
		if err != nil {
			return nil, err
		}
	}
	return labels, nil
}

// DeleteSummaries makes backups not exist any more. What they consist of
// stays. Those that could not be removed are in failed, by label.
func (e *Epoch) DeleteSummaries(ctx context.Context, labels ...Label) (failed map[Label]error, err error) {
	keys := make([]string, len(labels))
	for i, l := range labels {
		keys[i] = e.summaryKey(l)
	}
	whole := e.r.store.Delete(ctx, keys...)
	if whole == nil {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	// Which ones? What the store says is text.
	failed = map[Label]error{}
	for i, l := range labels {
		_, err := e.r.store.Stat(ctx, keys[i])
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			err = e.r.store.Delete(ctx, keys[i])
		}
		if err != nil {
			failed[l] = fmt.Errorf("remove backup %s from %s: %w", l, e.r.name, err)
		}
	}
	return failed, nil
}

// Removed counts what a deletion did.
type Removed struct {
	Objects int   // deleted
	Bytes   int64 // in them, as stored
	Left    int   // could not be deleted
}

// Add adds up.
func (r *Removed) Add(o Removed) {
	r.Objects += o.Objects
	r.Bytes += o.Bytes
	r.Left += o.Left
}

// DeleteBackupData removes manifest and packs of a label that has no summary,
// holding the lease of the label, so that nobody writes there meanwhile.
// allowed is asked before every batch; its error ends the deletion. Objects
// that the store refuses to delete are counted in Left and named in the error;
// the others are gone all the same.
//
// Errors: ErrBusy: somebody writes under the label; ErrExists: there is a
// summary. Nothing was deleted then.
func (e *Epoch) DeleteBackupData(ctx context.Context, label Label, allowed func(context.Context) error) (done Removed, err error) {
	lease, err := e.r.LockLabel(ctx, label, LeaseOptions{What: "removing what is left of " + string(label)})
	if err != nil {
		return done, fmt.Errorf("remove what is left of %s in %s: %w", label, e.r.name, err)
	}
	defer func() { err = errors.Join(err, lease.Release(context.WithoutCancel(ctx))) }()
	_, err = e.r.store.Stat(ctx, e.summaryKey(label))
	if err == nil {
		return done, fmt.Errorf("remove what is left of %s in %s: it has a summary: %w", label, e.r.name, ErrExists)
	}
	if !errors.Is(err, ErrNotFound) {
		return done, fmt.Errorf("look for the summary of %s in %s: %w", label, e.r.name, err)
	}
	ask := func(ctx context.Context) error {
		if err := context.Cause(lease.Context()); err != nil {
			return err
		}
		return allowed(ctx)
	}
	// The journal and the manifest first: whoever meets them may expect their
	// packs.
	done, err = e.deleteListed(ctx, e.prefix("resume")+string(label)+"/", "", ask, func(object.Info) (bool, error) { return true, nil })
	if err != nil {
		return done, err
	}
	manifest := e.manifestKey(label)
	info, err := e.r.store.Stat(ctx, manifest)
	if err == nil {
		one, err := e.delete(ctx, ask, []object.Info{info})
		done.Add(one)
		if err != nil {
			return done, err
		}
	} else if !errors.Is(err, ErrNotFound) {
		return done, fmt.Errorf("look for %s: %w", manifest, err)
	}
	packs, err := e.deleteListed(ctx, e.backupPrefix(label)+"pack/", "", ask, func(object.Info) (bool, error) { return true, nil })
	done.Add(packs)
	return done, err
}

// DeleteSegments removes the complete segments of a timeline with a number in
// [from, to], like DeleteBackupData in other respects.
func (e *Epoch) DeleteSegments(ctx context.Context, t pg.Timeline, from, to pg.SegmentNo, allowed func(context.Context) error) (Removed, error) {
	info, err := e.Info(ctx)
	if err != nil {
		return Removed{}, err
	}
	after := ""
	if from > 0 {
		after = e.segmentKey(info.SegmentSize.Name(t, from-1))
	}
	return e.deleteListed(ctx, e.walPrefix(t), after, allowed, func(i object.Info) (bool, error) {
		name, err := pg.ParseSegmentName(i.Key[strings.LastIndexByte(i.Key, '/')+1:])
		if err != nil || i.Key != e.segmentKey(name) {
			return false, nil // not ours
		}
		n, err := name.Number(info.SegmentSize)
		if err != nil || n < from {
			return false, nil
		}
		if n > to {
			return false, errStop
		}
		return true, nil
	})
}

// DeletePartials removes incomplete segments.
func (e *Epoch) DeletePartials(ctx context.Context, partials []Partial, allowed func(context.Context) error) (Removed, error) {
	var infos []object.Info
	for _, p := range partials {
		key, err := e.walKey(PartialFile(p.Segment, p.ValidTo))
		if err != nil {
			return Removed{}, err
		}
		infos = append(infos, object.Info{Key: key, Size: p.Size})
	}
	return e.deleteAll(ctx, allowed, infos)
}

// BackupHistoryFiles lists the server's backup history files, by name.
func (e *Epoch) BackupHistoryFiles(ctx context.Context) (names []string, err error) {
	prefix := e.prefix("label")
	err = e.list(ctx, prefix, "", func(i object.Info) error {
		if name := i.Key[len(prefix):]; pg.KindOf(name) == pg.FileBackupLabel {
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// DeleteBackupHistoryFiles removes some of them.
func (e *Epoch) DeleteBackupHistoryFiles(ctx context.Context, names []string, allowed func(context.Context) error) (Removed, error) {
	var infos []object.Info
	for _, name := range names {
		key, err := e.walKey(WALName{Kind: pg.FileBackupLabel, Name: name})
		if err != nil {
			return Removed{}, err
		}
		infos = append(infos, object.Info{Key: key})
	}
	return e.deleteAll(ctx, allowed, infos)
}

func (e *Epoch) deleteAll(ctx context.Context, allowed func(context.Context) error, infos []object.Info) (done Removed, err error) {
	var failures []error
	for len(infos) > 0 {
		n := min(removeBatch, len(infos))
		one, err := e.delete(ctx, allowed, infos[:n])
		done.Add(one)
		if err != nil {
			failures = append(failures, err)
		}
		if one.Objects+one.Left == 0 {
			break // not even tried
		}
		infos = infos[n:]
	}
	return done, errors.Join(failures...)
}

// deleteListed deletes what pick chooses of a listing, in batches, some at a
// time. errStop from pick ends the listing.
func (e *Epoch) deleteListed(ctx context.Context, prefix, after string, allowed func(context.Context) error, pick func(object.Info) (bool, error)) (Removed, error) {
	var group errgroup.Group // not of a context: a batch that fails does not end the others
	group.SetLimit(removeWorkers)
	results := make(chan Removed)
	total := make(chan Removed)
	go func() {
		var sum Removed
		for r := range results {
			sum.Add(r)
		}
		total <- sum
	}()
	var refused failures
	var stopped failures // allowed said no, or ctx is done: no more batches
	send := func(batch []object.Info) {
		group.Go(func() error {
			done, err := e.delete(ctx, allowed, batch)
			results <- done
			switch {
			case err == nil:
			case done.Objects+done.Left == 0:
				stopped.add(err)
			default:
				refused.add(err)
			}
			return nil
		})
	}
	var batch []object.Info
	err := e.list(ctx, prefix, after, func(i object.Info) error {
		take, err := pick(i)
		if err != nil || !take {
			return err
		}
		if batch = append(batch, i); len(batch) == removeBatch {
			send(batch)
			batch = nil
		}
		if stopped.any() {
			return errStop
		}
		return nil
	})
	if len(batch) > 0 && err == nil && !stopped.any() {
		send(batch)
	}
	_ = group.Wait()
	close(results)
	sum := <-total
	return sum, errors.Join(err, stopped.join(), refused.join())
}

// delete removes one batch.
func (e *Epoch) delete(ctx context.Context, allowed func(context.Context) error, batch []object.Info) (Removed, error) {
	if err := ctx.Err(); err != nil {
		return Removed{}, context.Cause(ctx)
	}
	if err := allowed(ctx); err != nil {
		return Removed{}, err
	}
	var done Removed
	keys := make([]string, len(batch))
	for i, info := range batch {
		keys[i] = info.Key
		done.Bytes += info.Size
	}
	err := e.r.store.Delete(ctx, keys...)
	if err == nil {
		done.Objects = len(batch)
		return done, nil
	}
	failure := fmt.Errorf("remove %d objects from %s: %w", len(batch), e.r.name, err)
	left, err := e.leftOf(ctx, batch)
	if err != nil { // then the store is away altogether
		return Removed{Left: len(batch)}, errors.Join(failure, err)
	}
	done.Left = left.Objects
	done.Objects = len(batch) - left.Objects
	done.Bytes -= left.Bytes
	return done, failure
}

// leftOf counts which of a batch, in order of keys, are still there: what the
// store says about those that failed is text.
func (e *Epoch) leftOf(ctx context.Context, batch []object.Info) (left Removed, err error) {
	there := make(map[string]bool, len(batch))
	for _, i := range batch {
		there[i.Key] = true
	}
	first, last := batch[0].Key, batch[len(batch)-1].Key
	common := 0
	for common < min(len(first), len(last)) && first[common] == last[common] {
		common++
	}
	err = e.list(ctx, first[:common], first[:len(first)-1], func(i object.Info) error {
		if there[i.Key] {
			left.Objects++
			left.Bytes += i.Size
		}
		if i.Key >= last {
			return errStop
		}
		return nil
	})
	return left, err
}

// MakeRoom deletes the manifest and some packs of a label that has no summary,
// without any lease: for a store that is too full to hold one. Nobody can write
// under the label then either.
func (e *Epoch) MakeRoom(ctx context.Context, label Label) error {
	if _, err := e.r.store.Stat(ctx, e.summaryKey(label)); !errors.Is(err, ErrNotFound) {
		return errors.Join(fmt.Errorf("make room in %s: %s is a backup: %w", e.r.name, label, ErrExists), err)
	}
	keys := []string{e.manifestKey(label)}
	err := e.list(ctx, e.backupPrefix(label)+"pack/", "", func(i object.Info) error {
		if keys = append(keys, i.Key); len(keys) >= removeBatch {
			return errStop
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := e.r.store.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("make room in %s: %w", e.r.name, err)
	}
	return nil
}
