package repo

import (
	"errors"
	"sync"
)

// failures collects errors of several goroutines: the first few whole, of the
// others the number.
type failures struct {
	mu   sync.Mutex // guards errs
	errs []error
}

// mostFailures is how many errors a message names.
const mostFailures = 5

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) < mostFailures {
		f.errs = append(f.errs, err)
	}
}

func (f *failures) any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.errs) > 0
}

func (f *failures) join() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.errs...)
}
