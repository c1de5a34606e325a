package gcs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/gcs"
	"github.com/walkeep/walkeep/repo/object/limit"
	"github.com/walkeep/walkeep/repo/object/prefix"
	"github.com/walkeep/walkeep/repo/object/retry"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		store := open(t)
		gcs.SetPage(store, 400)
		return store
	}, storetest.Keys(1300))
}

// TestStack runs the suite on wrappers in the order in which the programs stack
// them, over a store that fails every seventh call.
func TestStack(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		broken := faulty.New(open(t), faulty.Rule{Every: 7, Fault: faulty.Fail})
		prefixed, err := prefix.New(broken, "clusters/hippo")
		require.NoError(t, err)
		return retry.New(limit.New(prefixed, limit.Options{Requests: 8}), retry.Options{
			InitialWait: time.Millisecond, MaxWait: 10 * time.Millisecond,
		})
	}, storetest.Prefixed(len("clusters/hippo/")), storetest.Keys(1010), storetest.Large(20<<20))
}
