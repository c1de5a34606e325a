package prefix_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/repo/object/prefix"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

func wrap(t *testing.T, store object.Store, p string) object.Store {
	t.Helper()
	wrapped, err := prefix.New(store, p)
	require.NoError(t, err)
	return wrapped
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		return wrap(t, memory.New(), "clusters/hippo/")
	}, storetest.Prefixed(len("clusters/hippo/")), storetest.Keys(1100), storetest.Large(12<<20))
}

func TestStoreTwice(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		return wrap(t, wrap(t, memory.New(), "a"), "b")
	}, storetest.Prefixed(len("a/b/")), storetest.Keys(1100), storetest.Large(12<<20))
}

func TestNeighboursDoNotMeet(t *testing.T) {
	below := memory.New()
	hippo, hippo2, all := wrap(t, below, "hippo"), wrap(t, below, "hippo2"), wrap(t, below, "")
	for name, store := range map[string]object.Store{"one": hippo, "two": hippo2} {
		_, err := store.Put(t.Context(), "k", strings.NewReader(name), object.PutOptions{})
		require.NoError(t, err)
	}
	list := func(store object.Store) (keys []string) {
		require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
			keys = append(keys, i.Key)
			return nil
		}))
		return keys
	}
	require.Equal(t, []string{"k"}, list(hippo))
	require.Equal(t, []string{"hippo/k", "hippo2/k"}, list(all))
	require.NoError(t, hippo.Delete(t.Context(), "k"))
	require.Equal(t, []string{"hippo2/k"}, list(all))
	require.Equal(t, "memory/hippo", hippo.String())
}

func TestBadPrefix(t *testing.T) {
	for _, p := range []string{"..", "a/../b", "/", "a//b", `a\b`} {
		_, err := prefix.New(memory.New(), p)
		if p == "/" {
			require.NoError(t, err, "only a slash is no prefix")
			continue
		}
		require.ErrorIs(t, err, object.ErrBadKey, p)
	}
}
