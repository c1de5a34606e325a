package azure_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/azure"
)

// server is shared by the tests of this package; each takes a bucket of its own.
var server *stores.Azure

func TestMain(m *testing.M) {
	os.Exit(stores.Main(m, &server, stores.StartAzure, stores.Options{}))
}

// open returns a store in a fresh bucket. change adjusts its options.
func open(t *testing.T, change ...func(*azure.Options)) object.Store {
	t.Helper()
	opts := server.Options(stores.Bucket(t, server))
	for _, f := range change {
		f(&opts)
	}
	store, err := azure.New(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store
}
