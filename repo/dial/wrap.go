package dial

import (
	"strings"
	"time"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/limit"
	"github.com/walkeep/walkeep/repo/object/prefix"
	"github.com/walkeep/walkeep/repo/object/retry"
)

// wrap puts the wrappers around a driver, as the package comment says.
func wrap(store object.Store, c config.Repo, o Options) (object.Store, error) {
	leases := c.Prefix + "/lease/"
	store = limit.New(store, limit.Options{
		Requests:  c.Limit.Requests,
		ReadRate:  int64(c.Limit.Download),
		WriteRate: int64(c.Limit.Upload),
		// A lease that is renewed too late is lost, and the run with it.
		Urgent: func(key string) bool { return strings.HasPrefix(key, leases) },
	})
	store = retry.New(store, retry.Options{
		MaxElapsed:  shorter(c.Retry.Total, o.Patience),
		InitialWait: time.Duration(c.Retry.FirstDelay),
		MaxWait:     time.Duration(c.Retry.MaxDelay),
		Stall:       shorter(c.Retry.Stall, o.Patience),
		Log:         o.Log,
	})
	return prefix.New(store, c.Prefix)
}

// shorter is d, or patience if that is set and shorter.
func shorter(d config.Duration, patience time.Duration) time.Duration {
	if patience > 0 {
		return min(time.Duration(d), patience)
	}
	return time.Duration(d)
}
