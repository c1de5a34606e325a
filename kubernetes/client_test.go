package kubernetes

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

func TestConnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	write := func(context string) {
		require.NoError(t, os.WriteFile(path, []byte(`apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: test, context: `+context+`}]
users: [{name: test, user: {token: secret}}]
`), 0o600))
	}
	write(`{cluster: test, user: test, namespace: postgres}`)
	c, err := Connect(ClientOptions{Kubeconfig: path})
	require.NoError(t, err)
	require.Equal(t, "postgres", c.namespace)
	c, err = Connect(ClientOptions{Kubeconfig: path, Namespace: "other"})
	require.NoError(t, err)
	require.Equal(t, "other", c.namespace)

	// Nobody answers there: whoever asks is told, and is not elected.
	e, err := NewElection(ElectionOptions{Client: c, Lease: "hippo", Identity: "one", TTL: 12 * time.Second})
	require.NoError(t, err)
	require.Error(t, e.Confirm(t.Context()))
	require.False(t, e.Elected())

	write(`{cluster: missing, user: test}`)
	_, err = Connect(ClientOptions{Kubeconfig: path})
	require.Error(t, err)
	_, err = Connect(ClientOptions{Kubeconfig: path + ".missing"})
	require.ErrorIs(t, err, os.ErrNotExist)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err = Connect(ClientOptions{})
	require.ErrorIs(t, err, rest.ErrNotInCluster)

	for _, o := range []ElectionOptions{{}, {Client: c, Lease: "hippo", Identity: "one"}, {Client: &Client{}, Lease: "hippo", Identity: "one", TTL: time.Second}} {
		_, err := NewElection(o)
		require.Error(t, err)
	}
}
