package object

import (
	"context"
	"time"
)

// Aborter is a Store that keeps the parts of an upload whose writer was killed
// until somebody aborts it: they are not listed, and cost money. Of the drivers
// only s3 is one. Google forgets a resumable upload after a week (Cloud Storage
// documentation, "Resumable uploads"), Azure blocks that were not committed
// after a week (Put Block, "Remarks"), and the file-system driver sweeps its own.
type Aborter interface {
	// AbortUploads aborts the uploads of keys that start with prefix which were
	// begun before a moment of the store's clock, and returns how many. The
	// moment has to lie so far back that no writer still sends to one of them:
	// its Put would fail. Errors: ErrDenied, those of the store; what was
	// aborted before stays so.
	AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error)
}

// AbortUploads aborts what killed writers left in a store, and does nothing in
// one that keeps no such remains. Wrappers are an Aborter by calling it on the
// store below.
func AbortUploads(ctx context.Context, s Store, prefix string, before time.Time) (int, error) {
	a, ok := s.(Aborter)
	if !ok {
		return 0, nil
	}
	return a.AbortUploads(ctx, prefix, before)
}
