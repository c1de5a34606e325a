package check

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/azure"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/gcs"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/repo/object/retry"
	"github.com/walkeep/walkeep/repo/object/s3"
)

func openRepo(t *testing.T, store object.Store, keys *repo.Keys) *repo.Repository {
	t.Helper()
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "hippo", Keys: keys})
	require.NoError(t, err)
	return r
}

func checkStore(t *testing.T, store object.Store) Report {
	t.Helper()
	return Run(t.Context(), Options{Cluster: "hippo", Repos: []*repo.Repository{openRepo(t, store, nil)}})
}

// find returns the one check of that name with that outcome.
func find(t *testing.T, r Report, name string, status Status) Check {
	t.Helper()
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.Name == name && c.Status == status {
				return c
			}
		}
	}
	t.Fatalf("no check %s with status %s in:\n%s", name, status, text(t, r))
	return Check{}
}

func text(t *testing.T, r Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.WriteText(&b))
	return b.String()
}

// requireAdvice: whatever is not good says what to do.
func requireAdvice(t *testing.T, r Report) {
	t.Helper()
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.Status == Failed || c.Status == Warning {
				require.NotEmpty(t, c.Advice, "%s: %s", c.label(), c.Detail)
				require.NotEmpty(t, c.Detail, c.label())
			}
		}
	}
}

func keys(t *testing.T, store object.Store) []string {
	t.Helper()
	var all []string
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		all = append(all, i.Key)
		return nil
	}))
	return all
}

func TestGoodStores(t *testing.T) {
	ctx := t.Context()
	for name, open := range map[string]func(t *testing.T) (object.Store, error){
		"memory":     func(*testing.T) (object.Store, error) { return memory.New(), nil },
		"filesystem": func(t *testing.T) (object.Store, error) { return filesystem.New(filesystem.Options{Path: t.TempDir()}) },
		"s3": func(t *testing.T) (object.Store, error) {
			server := stores.Run(t, stores.StartS3, stores.Options{})
			return s3.New(ctx, server.Options(stores.Bucket(t, server)))
		},
		"gcs": func(t *testing.T) (object.Store, error) {
			server := stores.Run(t, stores.StartGCS, stores.Options{})
			return gcs.New(ctx, server.Options(stores.Bucket(t, server)))
		},
		"azure": func(t *testing.T) (object.Store, error) {
			server := stores.Run(t, stores.StartAzure, stores.Options{})
			return azure.New(ctx, server.Options(stores.Bucket(t, server)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := open(t)
			require.NoError(t, err)
			t.Cleanup(func() { _ = store.Close() })
			r := checkStore(t, store)
			require.Equal(t, OK, r.Status, text(t, r))
			require.NoError(t, r.Err())
			require.Empty(t, keys(t, store), "nothing is left behind")
		})
	}
}

func TestReportJSON(t *testing.T) {
	r := checkStore(t, memory.New())
	var b bytes.Buffer
	require.NoError(t, r.WriteJSON(&b))
	var back Report
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, r, back)
}

func TestFaultyStores(t *testing.T) {
	const content = "-content"
	for name, tc := range map[string]struct {
		rule   faulty.Rule
		check  string
		advice string
	}{
		"put denied":        {faulty.Rule{Op: faulty.Put, Fault: faulty.Deny}, "put", "s3:PutObject"},
		"get denied":        {faulty.Rule{Op: faulty.Get, Key: content, Fault: faulty.Deny}, "get", "s3:GetObject"},
		"list denied":       {faulty.Rule{Op: faulty.List, Key: "check-", Fault: faulty.Deny}, "list", "s3:ListBucket"},
		"delete denied":     {faulty.Rule{Op: faulty.Delete, Fault: faulty.Deny}, "delete", "s3:DeleteObject"},
		"put lost":          {faulty.Rule{Op: faulty.Put, Key: content, Fault: faulty.Lose}, "get", "it says that data is stored which is not"},
		"every put lost":    {faulty.Rule{Op: faulty.Put, Fault: faulty.Lose}, "get", "it says that data is stored which is not"},
		"large put lost":    {faulty.Rule{Op: faulty.Put, Key: "-large", Fault: faulty.Lose}, "large_put", ""},
		"race put lost":     {faulty.Rule{Op: faulty.Put, Key: "-race-1", Fault: faulty.Lose}, "put_if_absent_race", ""},
		"delete lost":       {faulty.Rule{Op: faulty.Delete, Fault: faulty.Lose}, "delete", "deletes"},
		"not there":         {faulty.Rule{Fault: faulty.Fail}, "reachable", "endpoint"},
		"large put refused": {faulty.Rule{Op: faulty.Put, Key: "-large", Fault: faulty.Fail}, "large_put", "endpoint"},
		"get breaks":        {faulty.Rule{Op: faulty.Get, Key: content, Fault: faulty.Truncate, Bytes: 10}, "get", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := checkStore(t, faulty.New(memory.New(), tc.rule))
			c := find(t, r, tc.check, Failed)
			require.Contains(t, c.Advice, tc.advice)
			require.ErrorIs(t, r.Err(), ErrFailed)
			requireAdvice(t, r)
		})
	}
}

// TestEveryCall: whatever call fails, the check ends, says so or got over it,
// and leaves nothing behind but what that call was to delete.
func TestEveryCall(t *testing.T) {
	checkStore := func(store object.Store) Report {
		return Run(t.Context(), Options{Cluster: "hippo", Repos: []*repo.Repository{openRepo(t, store, nil)}, largeSize: 10_000})
	}
	counting := faulty.New(memory.New())
	require.NoError(t, checkStore(counting).Err())
	calls := counting.Count("")
	require.Greater(t, calls, 40)
	for _, fault := range []faulty.Fault{faulty.Fail, faulty.LoseAnswer} {
		for k := 1; k <= calls; k++ {
			below := memory.New()
			r := checkStore(faulty.New(below, faulty.Rule{At: k, Fault: fault}))
			requireAdvice(t, r)
			if len(keys(t, below)) > 0 {
				require.NotEqual(t, OK, r.Status, "call %d", k)
			}
		}
	}
}

// lax ignores conditions, as a server does that does not know them.
type lax struct {
	object.Store
	absent, match bool
}

func (l lax) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	if l.absent {
		o.IfAbsent = false
	}
	if l.match {
		o.IfMatch = ""
	}
	return l.Store.Put(ctx, key, body, o)
}

// checkThenPut looks whether the condition holds, and then puts without it, as
// tools without conditional writes do.
type checkThenPut struct{ object.Store }

func (c checkThenPut) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	info, err := c.Stat(ctx, key)
	switch {
	case o.IfAbsent && err == nil:
		return object.Info{}, object.ErrExists
	case o.IfMatch != "" && (err != nil || info.Version != o.IfMatch):
		return object.Info{}, object.ErrChanged
	}
	time.Sleep(5 * time.Millisecond)
	return c.Store.Put(ctx, key, body, object.PutOptions{Size: o.Size})
}

// smallOnly knows conditions for objects of one request only.
type smallOnly struct{ object.Store }

func (s smallOnly) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	return lax{Store: s.Store, absent: o.Size == 0}.Put(ctx, key, body, o)
}

// rot changes a byte of what it gives back.
type rot struct{ object.Store }

func (r rot) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	body, err := r.Store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err == nil && len(b) > 0 {
		b[len(b)/2] ^= 1
	}
	return io.NopCloser(bytes.NewReader(b)), err
}

// wholeOnly ignores ranges.
type wholeOnly struct{ object.Store }

func (w wholeOnly) Get(ctx context.Context, key string, _, _ int64) (io.ReadCloser, error) {
	return w.Store.Get(ctx, key, 0, -1)
}

// forgetful lists all but the last key.
type forgetful struct{ object.Store }

func (f forgetful) List(ctx context.Context, prefix string, o object.ListOptions, fn func(object.Info) error) error {
	var last *object.Info
	return f.Store.List(ctx, prefix, o, func(i object.Info) error {
		previous := last
		last = &i
		if previous == nil {
			return nil
		}
		return fn(*previous)
	})
}

// late has a clock of its own.
type late struct {
	object.Store
	by time.Duration
}

func (l late) Stat(ctx context.Context, key string) (object.Info, error) {
	i, err := l.Store.Stat(ctx, key)
	i.Modified = i.Modified.Add(l.by)
	return i, err
}

// wrongWinner tells the winner of a race that it lost, and the next writer,
// which lost, that it won.
type wrongWinner struct {
	object.Store
	lies *atomic.Int32
}

func (w wrongWinner) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	i, err := w.Store.Put(ctx, key, body, o)
	switch {
	case !strings.HasSuffix(key, "-race-0"):
	case err == nil:
		return i, object.ErrExists
	case w.lies.Add(1) == 1:
		return i, nil
	}
	return i, err
}

func TestStoresThatBreakPromises(t *testing.T) {
	lossy := retry.New(faulty.New(memory.New(), faulty.Rule{Op: faulty.Put, Key: "-race-", At: 1, Fault: faulty.LoseAnswer}), retry.Options{InitialWait: time.Millisecond})
	for name, tc := range map[string]struct {
		store  object.Store
		check  string
		status Status
		advice string
	}{
		"no if-absent":           {lax{memory.New(), true, false}, "put_if_absent", Failed, "If-None-Match"},
		"no if-match":            {lax{memory.New(), false, true}, "put_if_match", Failed, "If-Match"},
		"check then put":         {checkThenPut{memory.New()}, "put_if_absent_race", Failed, "overwrite each other"},
		"check then put, match":  {checkThenPut{memory.New()}, "put_if_match_race", Failed, "overwrite each other"},
		"conditions small only":  {smallOnly{memory.New()}, "large_put", Failed, "overwrite each other"},
		"rot":                    {rot{memory.New()}, "get", Failed, "other data than was put"},
		"no ranges":              {wholeOnly{memory.New()}, "get", Failed, "ranged reads"},
		"incomplete list":        {forgetful{memory.New()}, "list", Failed, "complete"},
		"clock a little late":    {late{memory.New(), -time.Minute}, "clock", Warning, "time service"},
		"clock ahead":            {late{memory.New(), time.Hour}, "clock", Failed, "time service"},
		"wrong winner":           {wrongWinner{memory.New(), new(atomic.Int32)}, "put_if_absent_race", Failed, "overwrite each other"},
		"clock cut to a second":  {late{memory.New(), -900 * time.Millisecond}, "clock", OK, ""},
		"lost answers and retry": {lossy, "put_if_absent_race", OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := checkStore(t, tc.store)
			c := find(t, r, tc.check, tc.status)
			require.Contains(t, c.Advice, tc.advice)
			requireAdvice(t, r)
		})
	}
}

func TestForeignRepositories(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	other, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "rhino"})
	require.NoError(t, err)
	require.NoError(t, other.Init(ctx))
	before := keys(t, store)
	r := checkStore(t, store)
	c := find(t, r, "cluster", Failed)
	require.Contains(t, c.Detail, "rhino")
	require.Equal(t, before, keys(t, store), "nothing was written")
	requireAdvice(t, r)

	store = memory.New()
	_, err = store.Put(ctx, "walkeep", bytes.NewReader([]byte("garbage")), object.PutOptions{})
	require.NoError(t, err)
	r = checkStore(t, store)
	find(t, r, "cluster", Failed)
	require.ErrorIs(t, r.Err(), repo.ErrIntegrity)
	requireAdvice(t, r)
}

func TestEncryption(t *testing.T) {
	ctx := t.Context()
	identity := func() *age.X25519Identity {
		id, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		return id
	}
	data, nodeKey, stranger := identity(), identity(), identity()
	newKeys := func(o repo.KeyOptions) *repo.Keys {
		k, err := repo.NewKeys(o)
		require.NoError(t, err)
		return k
	}
	full := newKeys(repo.KeyOptions{Identity: data.String(), MetadataIdentity: nodeKey.String()})
	store := memory.New()
	r := openRepo(t, store, full)
	require.NoError(t, r.Init(ctx))
	_, err := r.EnsureEpoch(ctx, repo.EpochInfo{SystemID: 42, PGMajor: 15, SegmentSize: pg.DefaultSegmentSize})
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		keys   *repo.Keys
		check  string
		status Status
		text   string
	}{
		"all":           {full, "encryption", OK, "writes and reads"},
		"node":          {newKeys(repo.KeyOptions{Recipients: data.Recipient().String(), MetadataIdentity: nodeKey.String()}), "encryption", OK, "to restore, the identity of " + data.Recipient().String()},
		"node's epoch":  {newKeys(repo.KeyOptions{Recipients: data.Recipient().String(), MetadataIdentity: nodeKey.String()}), "epoch", OK, "42"},
		"writes only":   {newKeys(repo.KeyOptions{Recipients: data.Recipient().String()}), "encryption", Warning, "read nothing back"},
		"stranger":      {newKeys(repo.KeyOptions{Identity: stranger.String()}), "encryption", Warning, "other recipients"},
		"stranger, too": {newKeys(repo.KeyOptions{Identity: stranger.String()}), "epoch", Failed, "identity"},
		"plain":         {nil, "cluster", Failed, "encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			report := Run(ctx, Options{Cluster: "hippo", Repos: []*repo.Repository{openRepo(t, store, tc.keys)}})
			c := find(t, report, tc.check, tc.status)
			require.Contains(t, c.Detail, tc.text)
			requireAdvice(t, report)
		})
	}
}

// TestStaleProbes: what a killed check left behind goes, what a running one
// uses stays.
func TestStaleProbes(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	for _, key := range []string{probePrefix + "0123456789abcdef-content", "lease/backup"} {
		_, err := store.Put(ctx, key, bytes.NewReader([]byte("x")), object.PutOptions{})
		require.NoError(t, err)
	}
	r := openRepo(t, store, nil)
	now := time.Now()
	Run(ctx, Options{Cluster: "hippo", Repos: []*repo.Repository{r}, Clock: func() time.Time { return now.Add(50 * time.Minute) }})
	require.Len(t, keys(t, store), 2)
	Run(ctx, Options{Cluster: "hippo", Repos: []*repo.Repository{r}, Clock: func() time.Time { return now.Add(70 * time.Minute) }})
	require.Equal(t, []string{"lease/backup"}, keys(t, store))
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store := memory.New()
	r := Run(ctx, Options{Cluster: "hippo", Repos: []*repo.Repository{openRepo(t, store, nil)}})
	require.Error(t, r.Err())
	require.Empty(t, keys(t, store))
	requireAdvice(t, r)
}
