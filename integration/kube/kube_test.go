package kube

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
)

// TestKubernetes: one API server for all that does not need one of its own.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	c := Start(t)
	c.Namespace(t, namespace)
	c.Namespace(t, "monitoring")
	t.Run("manifests", func(t *testing.T) { testManifests(t, c) })
	t.Run("rights", func(t *testing.T) { testRights(t, c) })
	t.Run("election", func(t *testing.T) { testElection(t, c) })
	t.Run("faults", func(t *testing.T) { testFaults(t, c) })
	t.Run("leader", func(t *testing.T) { testLeader(t, c) })
	t.Run("reviews", func(t *testing.T) { testReviews(t, c) })
}

// holds waits until the Lease names a process.
func holds(t *testing.T, c *Cluster, s *served) {
	t.Helper()
	host, err := os.Hostname()
	require.NoError(t, err)
	c.AwaitLease(t, namespace, account, s.Name+" holds the Lease", func(holder string, _ int64) bool {
		return strings.HasPrefix(holder, fmt.Sprintf("%s_%d_", host, s.PID()))
	})
}

// testLeader: of two services that use the Lease of the manifests, with the token
// of their service account and no other right, one leads. Killed, stopped and woken
// up, terminated: another leads, and no run is started by one that does not.
func testLeader(t *testing.T, c *Cluster) {
	w := newWorld(t, c, account, "lease: 12s")
	one := w.serve(t, "one")
	first := one.leads(t, "the first leads")
	holds(t, c, one)
	two := w.serve(t, "two")
	two.follows(t, first)

	// Killed.
	killed := time.Now()
	one.Signal(syscall.SIGKILL)
	second := two.leads(t, "the second leads")
	t.Logf("a leader that was killed is replaced after %s", time.Since(killed).Round(100*time.Millisecond))
	require.NotEqual(t, first, second)
	holds(t, c, two)

	// Stopped, and woken up.
	three := w.serve(t, "three")
	three.follows(t, second)
	stopped := time.Now()
	two.Signal(syscall.SIGSTOP)
	third := three.leads(t, "the third leads")
	t.Logf("a leader that was stopped is replaced after %s", time.Since(stopped).Round(100*time.Millisecond))
	require.NotEqual(t, second, third)
	holds(t, c, three)
	two.Signal(syscall.SIGCONT)
	two.follows(t, third)
	snap := three.until(t, "more runs", func(snap *api.Snapshot) bool { return snap.Leading && snap.Leader == third })
	for range 3 {
		require.Equal(t, third, three.leads(t, "the third leads on"))
	}
	for _, r := range snap.Runs {
		require.False(t, r.By == second && r.Started.After(stopped.Add(time.Second)), "the one that slept began %+v", r)
	}
	requireOrder(t, three)

	// Terminated: at once, whatever the lease.
	ended := time.Now()
	three.Signal(syscall.SIGTERM)
	three.Ends(t, 0, patience)
	two.leads(t, "the second leads again")
	t.Logf("a leader that was terminated is replaced after %s", time.Since(ended).Round(100*time.Millisecond))
	two.Signal(syscall.SIGTERM)
	two.Ends(t, 0, patience)
	c.AwaitLease(t, namespace, account, "given back", Released)
}

// requireOrder: runs of a repository do not overlap, and none was done twice.
func requireOrder(t *testing.T, s *served) {
	t.Helper()
	snap := s.until(t, "a snapshot", func(*api.Snapshot) bool { return true })
	last, done := map[string]api.Run{}, map[string]bool{}
	for i := len(snap.Runs) - 1; i >= 0; i-- { // the oldest first
		r := snap.Runs[i]
		if before, ok := last[r.Repo]; ok && !before.Ended.IsZero() && before.Started.Before(r.Started) {
			require.False(t, r.Started.Before(before.Ended), "%+v overlaps %+v", r, before)
		}
		last[r.Repo] = r
		if r.State == api.Done && !r.Manual {
			key := r.Repo + r.Kind + r.Due.String()
			require.False(t, done[key], "twice: %+v", r)
			done[key] = true
		}
	}
}

// testReviews: tokens of service accounts on the REST API.
func testReviews(t *testing.T, c *Cluster) {
	w := newWorld(t, c, "another", "lease: 4s") // a Lease that it has no right to: it leads all the same
	s := w.serve(t, "reviews")
	c.ServiceAccount(t, "monitoring", "prometheus")
	c.ServiceAccount(t, namespace, "stranger")
	audience := "walkeep"
	operator := c.Token(t, namespace, "hippo-operator", time.Hour, audience)
	viewer := c.Token(t, "monitoring", "prometheus", time.Hour, audience)
	ask := func(token, method, path string) int {
		t.Helper()
		var body any
		if method == http.MethodPost {
			body = map[string]bool{"dry_run": true}
		}
		code, err := s.ask(token, method, path, body, nil)
		require.NoError(t, err)
		return code
	}
	s.leads(t, "it leads without a right to the Lease")
	require.Equal(t, http.StatusOK, ask(operator, http.MethodGet, "/v1/health"))
	require.Equal(t, http.StatusOK, ask(viewer, http.MethodGet, "/v1/health"))
	require.Equal(t, http.StatusOK, ask(viewer, http.MethodGet, "/metrics"))
	require.Equal(t, http.StatusForbidden, ask(viewer, http.MethodPost, "/v1/repos/repo1/pause"))
	require.Less(t, ask(operator, http.MethodPost, "/v1/repos/repo1/expire"), 300)
	for what, token := range map[string]string{
		"a service account without a role": c.Token(t, namespace, "stranger", time.Hour, audience),
		"a token for the API server":       c.Token(t, namespace, "hippo-operator", time.Hour),
		"a token for others":               c.Token(t, namespace, "hippo-operator", time.Hour, "vault"),
		"a token that was changed":         operator[:len(operator)-6] + "AAAAAA",
		"the administrator's":              c.admin,
		"no token":                         "nonsense",
	} {
		require.Equal(t, http.StatusUnauthorized, ask(token, http.MethodGet, "/v1/health"), what)
	}
	require.Equal(t, http.StatusOK, ask(staticToken, http.MethodGet, "/v1/health"), "a token of the file")
	require.NotContains(t, s.Log.String(), operator)
}

// TestServerAway: an API server that is away stops nothing. Its answers are
// missed where nobody may be let in without them.
func TestServerAway(t *testing.T) {
	t.Parallel()
	c := Start(t)
	c.Namespace(t, namespace)
	c.Apply(t, inManifests("rbac.yaml"))
	w := newWorld(t, c, account, "lease: 4s")
	one := w.serve(t, "one")
	first := one.leads(t, "the first leads")
	holds(t, c, one)
	two := w.serve(t, "two")
	two.follows(t, first)
	operator := c.Token(t, namespace, "hippo-operator", time.Hour, "walkeep")
	unknown := c.Token(t, namespace, "hippo-operator", 2*time.Hour, "walkeep")
	code, err := two.ask(operator, http.MethodGet, "/v1/health", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)

	// Silent: the leader goes on, well beyond all leases.
	c.SilenceServer()
	for away := time.Now(); time.Since(away) < 12*time.Second; { // three times the lease
		require.Equal(t, first, one.leads(t, "the first leads on"))
	}
	two.follows(t, first)
	code, err = two.ask(unknown, http.MethodGet, "/v1/health", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, code, "a token that nobody can review")
	code, err = two.ask(staticToken, http.MethodGet, "/v1/health", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)

	// And the leader dies.
	killed := time.Now()
	one.Signal(syscall.SIGKILL)
	second := two.leads(t, "the second leads, unelected")
	t.Logf("without the API server, a leader that was killed is replaced after %s", time.Since(killed).Round(100*time.Millisecond))
	require.NotEqual(t, first, second)

	// It is back: who leads is elected, and goes on.
	c.WakeServer()
	holds(t, c, two)
	require.Equal(t, second, two.leads(t, "the second leads on"))
	code, err = two.ask(unknown, http.MethodGet, "/v1/health", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)

	// It is gone.
	c.StopServer()
	for range 3 {
		require.Equal(t, second, two.leads(t, "the second leads on"))
	}
}
