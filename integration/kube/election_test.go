package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/walkeep/walkeep/kubernetes"
)

// candidate is one that stands for election until stop, which waits.
type candidate struct {
	*kubernetes.Election
	stop func()
}

func stand(t *testing.T, kubeconfig, lease, name string, ttl time.Duration) *candidate {
	t.Helper()
	client, err := kubernetes.Connect(kubernetes.ClientOptions{Kubeconfig: kubeconfig, UserAgent: "test"})
	require.NoError(t, err)
	e, err := kubernetes.NewElection(kubernetes.ElectionOptions{Client: client, Lease: lease, Identity: name, TTL: ttl})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { e.Stand(ctx); close(ended) }()
	c := &candidate{e, func() { cancel(); <-ended }}
	t.Cleanup(c.stop)
	return c
}

// testElection: of several candidates never two are elected, whoever comes and
// goes; one always is in the end.
func testElection(t *testing.T, c *Cluster) {
	const ttl = 3 * time.Second
	kubeconfig := c.Kubeconfig(t, t.TempDir(), namespace, c.admin)
	var mu sync.Mutex // guards all
	var all []*candidate
	add := func(name string) *candidate {
		one := stand(t, kubeconfig, "election", name, ttl)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, one)
		return one
	}
	two := atomic.Bool{}
	watching, stop := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for watching.Err() == nil {
			mu.Lock()
			list := all
			mu.Unlock()
			for i, a := range list {
				for _, b := range list[i+1:] {
					start := time.Now()
					// Twice, within less than it takes to change.
					if a.Elected() && b.Elected() && a.Elected() && time.Since(start) < ttl/10 {
						two.Store(true)
					}
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	elected := func(but *candidate) (found *candidate) {
		require.Eventually(t, func() bool {
			for _, one := range all {
				if one != but && one.Elected() && one.Confirm(t.Context()) == nil {
					found = one
					return true
				}
			}
			return false
		}, patience, 20*time.Millisecond)
		return found
	}
	for i := range 4 {
		add(fmt.Sprintf("candidate-%d", i))
	}
	for range 3 {
		first := elected(nil)
		first.stop() // gives it back
		require.False(t, first.Elected())
		require.NotSame(t, first, elected(first))
	}
	elected(nil).stop()
	stop()
	<-watched
	require.False(t, two.Load(), "two were elected at the same time")
	c.AwaitLease(t, namespace, "election", "given back, after four", func(holder string, transitions int64) bool {
		return holder == "" && transitions >= 3
	})
}

// testFaults: each request in turn fails, before or after the API server saw it.
// Whoever stands is elected all the same, and gives the Lease back.
func testFaults(t *testing.T, c *Cluster) {
	target, err := url.Parse(c.URL)
	require.NoError(t, err)
	transport, err := rest.TransportFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile}})
	require.NoError(t, err)
	for _, lose := range []bool{false, true} {
		for k := int64(1); k <= 4; k++ {
			t.Run(fmt.Sprintf("lose=%t k=%d", lose, k), func(t *testing.T) {
				t.Parallel()
				var n atomic.Int64
				forward := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(target)
					// client-go sends no token where there is no TLS.
					r.Out.Header.Set("Authorization", "Bearer "+c.admin)
				}}
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					bad := n.Add(1) == k
					if bad && lose {
						forward.ServeHTTP(httptest.NewRecorder(), r)
					}
					if bad {
						panic(http.ErrAbortHandler) // the connection is cut
					}
					forward.ServeHTTP(w, r)
				}))
				defer proxy.Close()
				dir := t.TempDir()
				b, err := os.ReadFile(c.Kubeconfig(t, dir, namespace, c.admin))
				require.NoError(t, err)
				kubeconfig := filepath.Join(dir, "through")
				require.NoError(t, os.WriteFile(kubeconfig, bytes.ReplaceAll(b, []byte(c.URL), []byte(proxy.URL)), 0o600))
				lease := fmt.Sprintf("faults-%t-%d", lose, k)
				one := stand(t, kubeconfig, lease, "one", 3*time.Second)
				require.Eventually(t, func() bool { return one.Elected() && n.Load() > k }, patience, 10*time.Millisecond)
				c.AwaitLease(t, namespace, lease, "its name", func(holder string, transitions int64) bool {
					return holder == "one" && transitions == 0
				})
				one.stop()
				c.AwaitLease(t, namespace, lease, "given back", Released)
			})
		}
	}
}
