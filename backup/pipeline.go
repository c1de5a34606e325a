package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// pipeline copies a PGDATA into packs and manifests:
//
//	walk → units → workers → results, in order → manifest of each repository
//
// Units are handed out in the order of the manifest; the workers finish them
// in any order, and the collector puts the results back in order. No more than
// a fixed number of units is between the walk and the manifest, so memory does
// not grow with the cluster.
type pipeline struct {
	from     Source
	targets  []*target
	workers  int
	packSize int64
	pages    *pageChecker // nil: the cluster has no page checksums
	planner  *planner     // nil: everything is stored whole
	progress Progress
	owners   *owners
	log      *zap.Logger

	readLimit, uploadLimit *rate.Limiter

	read atomic.Int64 // plain bytes stored
}

func (p *pipeline) done(n int64) {
	p.read.Add(n)
	p.progress.Add(n)
}

// window is how many units are between the walk and the manifest at most.
func (p *pipeline) window() int { return 4 + 4*p.workers }

// run copies what walk emits. It returns when every pack is stored and every
// manifest entry handed over, or with the first error that concerns the
// cluster, or with errNoRepository. No goroutine outlives it.
func (p *pipeline) run(ctx context.Context, walk func(context.Context, func(entry) error) error) error {
	// The first error cancels ctx, and is its cause. Uploads run under it too,
	// so nobody waits for what is not wanted any more.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer p.watchTargets(cancel)()

	units := make(chan *unit, p.workers)
	results := make(chan *result, p.workers)
	window := make(chan struct{}, p.window())
	var all, workers sync.WaitGroup
	all.Go(func() {
		defer close(units)
		d := dispatcher{p: p, units: units, window: window}
		if err := d.run(ctx, walk); err != nil {
			cancel(err)
		}
	})
	for range p.workers {
		workers.Go(func() { p.work(ctx, cancel, units, results) })
	}
	all.Go(func() {
		defer close(results)
		workers.Wait()
	})
	all.Go(func() { p.collect(ctx, results, window) })
	all.Wait()
	for _, t := range p.targets {
		t.settle()
	}
	return context.Cause(ctx)
}

// watchTargets ends the pipeline when no repository is left, until stop is
// called.
func (p *pipeline) watchTargets(cancel context.CancelCauseFunc) (stop func()) {
	finished := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for _, t := range p.targets {
			select {
			case <-t.gone:
			case <-finished:
				return
			}
		}
		cancel(errNoRepository)
	})
	return func() { close(finished); watch.Wait() }
}

// work is one worker's life.
func (p *pipeline) work(ctx context.Context, cancel context.CancelCauseFunc, units <-chan *unit, results chan<- *result) {
	w, err := p.newWorker()
	if err != nil {
		cancel(err)
		return
	}
	defer w.finish()
	for {
		select {
		case u, ok := <-units:
			if !ok {
				return
			}
			r, err := w.do(ctx, u)
			u.release()
			if err != nil {
				cancel(err)
				return
			}
			select {
			case results <- r:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// dispatcher turns what the walk finds into units.
type dispatcher struct {
	p      *pipeline
	units  chan *unit
	window chan struct{}
	seq    int

	batch []entry
	plans []*filePlan // of batch
	bytes int64       // of batch that is to be read
}

func (d *dispatcher) run(ctx context.Context, walk func(context.Context, func(entry) error) error) error {
	// Units that no worker took, because of an error elsewhere, hold files.
	defer func() {
		for {
			select {
			case u := <-d.units:
				u.release()
			default:
				return
			}
		}
	}()
	err := walk(ctx, func(e entry) error { return d.add(ctx, e) })
	if err == nil {
		err = d.flush(ctx)
	}
	if err == nil {
		// Wait until the collector has everything: only then is it certain
		// that no unit is left in the channel.
		for range cap(d.window) {
			if err = d.acquire(ctx); err != nil {
				break
			}
		}
	}
	return err
}

func (d *dispatcher) add(ctx context.Context, e entry) error {
	plan := d.p.planner.plan(e)
	read := e.size
	if plan != nil && plan.asWas {
		read = 0
	}
	if e.kind == kindFile && read > chunkSize {
		if err := d.flush(ctx); err != nil {
			return err
		}
		return d.large(ctx, e, plan)
	}
	if d.bytes+read > chunkSize || len(d.batch) == batchFiles {
		if err := d.flush(ctx); err != nil {
			return err
		}
	}
	d.batch, d.plans = append(d.batch, e), append(d.plans, plan)
	d.bytes += read
	return nil
}

func (d *dispatcher) flush(ctx context.Context) error {
	if len(d.batch) == 0 {
		return nil
	}
	u := &unit{batch: d.batch, plans: d.plans}
	d.batch, d.plans, d.bytes = nil, nil, 0
	return d.send(ctx, u)
}

// large opens a file and cuts it into ranges. What it grows by after that is
// left to replay.
func (d *dispatcher) large(ctx context.Context, e entry, plan *filePlan) error {
	opened, err := d.p.from.open(ctx, e)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	src, size := &sharedFile{file: opened}, opened.size()
	src.refs.Store(1)
	defer src.release()
	for off := int64(0); ; {
		n := min(rangeSize, size-off)
		last := off+n == size
		src.refs.Add(1)
		if plan == nil || plan.changed == nil {
			src.willNeed(off, n)
		}
		if err := d.send(ctx, &unit{file: src, entry: e, plan: plan, off: off, length: n, last: last}); err != nil {
			src.release()
			return err
		}
		if last {
			return nil
		}
		off += n
	}
}

func (d *dispatcher) acquire(ctx context.Context) error {
	select {
	case d.window <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *dispatcher) send(ctx context.Context, u *unit) error {
	if err := d.acquire(ctx); err != nil {
		return err
	}
	u.seq = d.seq
	d.seq++
	select {
	case d.units <- u:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// collect puts results back in order and writes the manifests.
func (p *pipeline) collect(ctx context.Context, results <-chan *result, window <-chan struct{}) {
	waiting := map[int]*result{}
	next := 0
	asm := assembler{p: p}
	for {
		select {
		case r, ok := <-results:
			if !ok {
				return
			}
			waiting[r.unit.seq] = r
		case <-ctx.Done():
			return
		}
		for r := waiting[next]; r != nil; r = waiting[next] {
			delete(waiting, next)
			next++
			asm.add(r)
			<-window
		}
	}
}

// storeLast is the way of the few files that are in memory: one worker, in the
// caller's goroutine.
func (p *pipeline) storeLast(ctx context.Context, files []lastFile) error {
	w, err := p.newWorker()
	if err != nil {
		return err
	}
	defer w.finish()
	asm := assembler{p: p}
	for _, f := range files {
		pc := p.newPiece()
		for rest := f.data; len(rest) > 0; {
			n := copy(w.buf, rest)
			pc.read(w.buf[:n])
			if err := w.keep(ctx, w.all, w.buf[:n], &pc); err != nil {
				return fmt.Errorf("store %s: %w", f.entry.path, err)
			}
			if err := w.flush(ctx); err != nil {
				return fmt.Errorf("store %s: %w", f.entry.path, err)
			}
			p.done(int64(n))
			rest = rest[n:]
		}
		asm.add(&result{unit: &unit{file: &sharedFile{}, entry: f.entry, last: true}, pieces: []piece{pc}})
	}
	return nil
}
