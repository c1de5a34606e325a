package backup

import (
	"context"

	"golang.org/x/time/rate"
)

// limitBurst is how much may go at once; more than any single step is.
const limitBurst = 4 << 20

// Limit makes a limit of so many bytes a second, 0 for none. SetLimit of what
// it returns changes it, also while a backup runs ([rate.Inf]: no limit).
func Limit(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return rate.NewLimiter(rate.Inf, limitBurst)
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), limitBurst)
}

// wait waits until n bytes may go.
func wait(ctx context.Context, l *rate.Limiter, n int) error {
	for l != nil && n > 0 {
		one := min(n, max(1, l.Burst()))
		if err := l.WaitN(ctx, one); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		n -= one
	}
	return nil
}
