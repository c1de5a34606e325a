package gcs_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/gcs"
)

// server is shared by the tests of this package; each takes a bucket of its own.
var server *stores.GCS

func TestMain(m *testing.M) {
	os.Exit(stores.Main(m, &server, stores.StartGCS, stores.Options{}))
}

// open returns a store in a fresh bucket. change adjusts its options.
func open(t *testing.T, change ...func(*gcs.Options)) object.Store {
	t.Helper()
	opts := server.Options(stores.Bucket(t, server))
	for _, f := range change {
		f(&opts)
	}
	store, err := gcs.New(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store
}
