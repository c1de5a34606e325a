package patroni_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg/patroni"
)

const answer = `{"members": [
 {"name": "pg-0", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432, "timeline": 3},
 {"name": "pg-1", "role": "replica", "state": "streaming", "host": "10.0.0.2", "port": "5433", "timeline": 3, "lag": 4096},
 {"name": "pg-2", "role": "sync_standby", "state": "starting", "host": "fd00::3", "port": 5432, "lag": "unknown"},
 {"name": "pg-3", "role": "replica", "state": "creating replica"}], "scope": "hippo"}`

func TestMembers(t *testing.T) {
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/cluster" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, answer)
	}))
	defer good.Close()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer bad.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	giant := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"members": [`, strings.Repeat(" ", 2<<20))
	}))
	defer giant.Close()
	closed := httptest.NewServer(nil)
	closed.Close()

	broken := []string{closed.URL, bad.URL, silent.URL, giant.URL}
	members, err := patroni.Members(t.Context(), patroni.Options{URLs: append(broken, good.URL+"/"), Timeout: 500 * time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, []patroni.Member{
		{Name: "pg-0", Host: "10.0.0.1", Port: 5432, Role: "leader", State: "running", Timeline: 3},
		{Name: "pg-1", Host: "10.0.0.2", Port: 5433, Role: "replica", State: "streaming", Timeline: 3, Lag: 4096},
		{Name: "pg-2", Host: "fd00::3", Port: 5432, Role: "sync_standby", State: "starting", Lag: -1},
	}, members)
	require.True(t, members[0].Leader())
	require.True(t, members[1].Running())
	require.False(t, members[2].Running())
	conninfo, err := members[2].ConnInfo("user=walkeep")
	require.NoError(t, err)
	require.Equal(t, "host='fd00::3' port=5432 user=walkeep", conninfo)
	_, err = members[0].ConnInfo("postgresql://x")
	require.Error(t, err)

	_, err = patroni.Members(t.Context(), patroni.Options{URLs: broken, Timeout: 500 * time.Millisecond})
	require.ErrorIs(t, err, patroni.ErrNoAnswer)
	for _, u := range broken {
		require.ErrorContains(t, err, u)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = patroni.Members(over, patroni.Options{URLs: []string{good.URL}})
	require.ErrorIs(t, err, context.Canceled)
	_, err = patroni.Members(t.Context(), patroni.Options{URLs: []string{good.URL}, CAFile: "/nowhere"})
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(answer))
	f.Add([]byte(`{"members": [{"name": "a", "host": "b", "port": 99999}]}`))
	f.Add([]byte(`{"members": [{"name": "a", "host": "x' user='y", "timeline": -1, "lag": -5}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		members, err := patroni.Parse(b)
		if err != nil {
			return
		}
		require.NotEmpty(t, members)
		for _, m := range members {
			require.NotZero(t, m.Port)
			require.GreaterOrEqual(t, m.Lag, int64(-1))
		}
	})
}
