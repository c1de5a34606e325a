package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// watch gives up on an attempt in which the store does nothing for too long, by
// cancelling its context.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
}

var errStalled = errors.New("the store does not respond")

// watch returns the context for one attempt. Call stop at its end.
func (s *Store) watch(ctx context.Context) (context.Context, *watch) {
	w := &watch{limit: s.opts.Stall}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(w.limit, func() {
		w.cancel(fmt.Errorf("%w for %s", errStalled, w.limit))
	})
	return w.ctx, w
}

// alive notes that the store did something.
func (w *watch) alive() { w.timer.Reset(w.limit) }

// pause stops the clock until alive is called: it is not the store's turn.
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain puts the stall in the place of the cancellation that it caused, which
// would look like the caller's.
func (w *watch) explain(err error) error {
	cause := context.Cause(w.ctx)
	if err == nil || object.IsPermanent(err) || !errors.Is(cause, errStalled) {
		return err
	}
	return cause
}
