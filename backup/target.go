package backup

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/walkeep/walkeep/repo"
)

// errNoRepository ends a backup of which no repository is left.
var errNoRepository = errors.New("every repository failed")

// target is one repository that a running backup goes to. The first error
// takes it out; the others go on.
type target struct {
	repo   *repo.Repository
	epoch  *repo.Epoch
	lease  *repo.Lease
	writer *repo.BackupWriter

	kind   repo.BackupType // full where no parent can be used
	parent *parent         // nil for a full
	label  repo.Label
	// remains is what a killed backup left in this repository, as if it were
	// the parent; nil: nothing. See resume.go.
	remains *parent
	journal *repo.RemainsReader // of remains
	pushed  bool                // WAL by the backup itself
	notes   []string            // what people should know: why a parent was passed over

	// closing bounds the packs that were filled and are being made durable
	// while their worker goes on with the next one.
	closing chan struct{}
	closers sync.WaitGroup

	out  atomic.Bool   // no more work for this repository
	gone chan struct{} // closed when out is set
	mu   sync.Mutex    // guards err
	err  error
}

func newTarget(r *repo.Repository, closers int) *target {
	return &target{repo: r, closing: make(chan struct{}, closers), gone: make(chan struct{})}
}

// fail takes the repository out. Only the first error counts: the later ones
// follow from it.
func (t *target) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
		t.out.Store(true)
		close(t.gone)
	}
}

// failure is why the repository dropped out, or nil.
func (t *target) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// retire closes a full pack in the background. At most cap(t.closing) wait for
// the store at a time; beyond that the caller waits too, so that a slow store
// slows the backup down instead of filling the memory.
func (t *target) retire(ctx context.Context, pack *repo.PackWriter) {
	select {
	case t.closing <- struct{}{}:
	case <-ctx.Done():
		_ = pack.Close()
		return
	}
	t.closers.Add(1)
	go func() {
		defer t.closers.Done()
		defer func() { <-t.closing }()
		if err := pack.Close(); err != nil {
			t.fail(err)
		}
	}()
}

// settle waits for the packs that retire is closing.
func (t *target) settle() { t.closers.Wait() }
