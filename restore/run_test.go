package restore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
)

func options(dir string) Options {
	return Options{PGData: dir, RestoreCommand: RestoreCommand("/usr/bin/walkeep-wal"), Workers: 3}
}

func TestRunRestoresEverything(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, packSize := range []int64{1, 50_000, 1 << 30} {
		s := newSynthetic(t, nil)
		c := syntheticContent(rng)
		dir := filepath.Join(t.TempDir(), "deep", "data")
		res, err := Run(t.Context(), s.plan(s.backup(c, repo.Full, packSize, nil)), options(dir))
		require.NoError(t, err)
		requireRestored(t, dir, c, nil)
		require.EqualValues(t, len(c)-2, res.Files) // two are directories
		st, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700)|os.ModeDir, st.Mode())
		st, err = os.Stat(filepath.Join(dir, "base/5/1250"))
		require.NoError(t, err)
		require.True(t, st.ModTime().Equal(s.at.Add(-3600e9).Add(123456789)), st.ModTime())
	}
}

func TestRunIncremental(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	s.backup(c, repo.Full, 300_000, nil)
	var sum repo.Summary
	for _, kind := range []repo.BackupType{repo.Differential, repo.Incremental, repo.Incremental} {
		for _, p := range []string{"base/5/1250", "base/5/1300", "base/5/1301"} {
			data := append([]byte{}, c[p]...)
			for range 60 {
				page := rng.IntN(len(data) / 8192)
				copy(data[page*8192:], someData(rng, 8192))
			}
			c[p] = data
		}
		c["base/5/new"+string(kind)] = someData(rng, 20_000)
		sum = s.backup(c, kind, 300_000, nil)
	}
	require.Len(t, sum.References, 3)
	dir := filepath.Join(t.TempDir(), "data")
	_, err := Run(t.Context(), s.plan(sum), options(dir))
	require.NoError(t, err)
	requireRestored(t, dir, c, nil)
}

func TestRunTablespaces(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	was := filepath.Join(t.TempDir(), "was")
	for _, test := range []struct {
		name string
		set  func(o *Options, to string)
		to   string // "" is where it was
	}{
		{"where it was", func(*Options, string) {}, ""},
		{"mapped by OID", func(o *Options, to string) { o.Tablespaces = map[string]string{"16400": to} }, "elsewhere"},
		{"mapped by location", func(o *Options, to string) { o.Tablespaces = map[string]string{was: to} }, "elsewhere"},
		{"all mapped", func(o *Options, to string) { o.TablespacesBelow = filepath.Dir(to) }, "16400"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSynthetic(t, nil)
			c := syntheticContent(rng)
			c[syntheticTS+"/"] = nil
			c[syntheticVer+"/5/3000"] = someData(rng, 2<<20)
			sum := s.backup(c, repo.Full, 1<<20, map[string]string{syntheticTS: was})
			delete(c, syntheticTS+"/")
			dir, to := filepath.Join(t.TempDir(), "data"), was
			if test.to != "" {
				to = filepath.Join(t.TempDir(), test.to)
			}
			o := options(dir)
			test.set(&o, to)
			res, err := Run(t.Context(), s.plan(sum), o)
			require.NoError(t, err)
			require.Equal(t, to, res.Tablespaces[16400])
			requireRestored(t, dir, c, map[string]string{syntheticTS: to})
		})
	}
}

func TestRunRefusesPlaces(t *testing.T) {
	s := newSynthetic(t, nil)
	ts := filepath.Join(t.TempDir(), "ts")
	c := syntheticContent(rand.New(rand.NewPCG(4, 4)))
	c[syntheticVer+"/5/3000"] = []byte("x")
	plan := s.plan(s.backup(c, repo.Full, 1<<20, map[string]string{syntheticTS: ts}))
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	try := func(o Options) error {
		_, err := Run(t.Context(), plan, o)
		return err
	}
	write := func(p, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	}

	write(filepath.Join(dir, "somebody's"), "")
	require.ErrorIs(t, try(options(dir)), ErrNotEmpty)
	require.FileExists(t, filepath.Join(dir, "somebody's"))
	require.NoFileExists(t, filepath.Join(dir, markerFile))
	require.NoDirExists(t, ts)

	server := exec.Command("sleep", "600")
	server.Dir = dir
	require.NoError(t, server.Start())
	write(filepath.Join(dir, "postmaster.pid"), fmt.Sprintf("%d\n%s\n", server.Process.Pid, dir))
	require.ErrorIs(t, try(options(dir)), ErrServerRunning)
	require.NoError(t, server.Process.Kill())
	_ = server.Wait()
	require.NoError(t, os.RemoveAll(dir))

	// A tablespace's directory with files: PGDATA is left as it was.
	write(filepath.Join(ts, "somebody's"), "")
	require.ErrorIs(t, try(options(dir)), ErrNotEmpty)
	require.NoDirExists(t, dir)
	require.NoError(t, os.RemoveAll(ts))

	// Remains of a restore into another directory are not ours to clear.
	write(filepath.Join(ts, markerFile), "x\n/other/data\n")
	write(filepath.Join(ts, "PG_15", "1"), "")
	require.ErrorIs(t, try(options(dir)), ErrNotEmpty)
	require.FileExists(t, filepath.Join(ts, "PG_15", "1"))
	require.NoError(t, os.RemoveAll(ts))

	for _, m := range []map[string]string{{"99": "/x"}, {"16400": "relative"}, {"16400": dir}, {"16400": dir + "/ts"}, {"16400": parent}} {
		o := options(dir)
		o.Tablespaces = m
		require.ErrorIs(t, try(o), ErrBadRequest, m)
		require.NoDirExists(t, dir)
	}
	write(filepath.Join(parent, "file"), "")
	require.Error(t, try(options(filepath.Join(parent, "file"))))
	require.ErrorIs(t, try(options("")), ErrBadRequest)
	require.ErrorIs(t, try(options("/")), ErrBadRequest)
	require.NoError(t, try(options(dir)))
}

// TestRunAgain stops a restore at every step, and at every call of the store,
// and restores again into what that left.
func TestRunAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	ts := filepath.Join(t.TempDir(), "ts")
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	c[syntheticVer+"/5/3000"] = someData(rng, 2<<20)
	sum := s.backup(c, repo.Full, 200_000, map[string]string{syntheticTS: ts})
	stopped := errors.New("stopped here")
	steps := []string{"marked", "written", "durable", "control", "unmarked"}
	for _, step := range steps {
		dir := filepath.Join(t.TempDir(), "data")
		o := options(dir)
		o.fault = func(at string) error {
			if at == step {
				return stopped
			}
			return nil
		}
		_, err := Run(t.Context(), s.plan(sum), o)
		require.ErrorIs(t, err, stopped)
		if step == "unmarked" {
			// It is complete, and a marker in the tablespace changes nothing.
			require.NoError(t, os.RemoveAll(filepath.Join(ts, markerFile)))
			requireRestored(t, dir, c, map[string]string{syntheticTS: ts})
			_, err := Run(t.Context(), s.plan(sum), options(dir))
			require.ErrorIs(t, err, ErrNotEmpty)
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.RemoveAll(ts))
		} else if step != "control" {
			require.NoFileExists(t, filepath.Join(dir, controlFile), step)
		}
		requireAgain(t, s, sum, dir, c, ts)
	}
}

func TestRunEveryStoreCallFails(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	ts := filepath.Join(t.TempDir(), "ts")
	s := newSynthetic(t, nil)
	c := syntheticContent(rng)
	c[syntheticVer+"/5/3000"] = someData(rng, 2<<20)
	sum := s.backup(c, repo.Full, 400_000, map[string]string{syntheticTS: ts})
	count := faulty.New(s.store)
	plan := s.plan(sum)
	plan.epoch = s.reopen(count)
	_, err := Run(t.Context(), plan, options(filepath.Join(t.TempDir(), "data")))
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(ts))
	calls := 0 // but those for the mark that it is in use: a restore does without
	for _, c := range count.Calls() {
		if strings.Contains(c.Key, "/backup/") {
			calls++
		}
	}
	require.Greater(t, calls, 10)
	for k := 1; k <= calls; k++ {
		for _, fault := range []faulty.Fault{faulty.Fail, faulty.Truncate} {
			dir := filepath.Join(t.TempDir(), "data")
			plan.epoch = s.reopen(faulty.New(s.store, faulty.Rule{Key: "/backup/", At: k, Fault: fault, Bytes: 100}))
			_, err := Run(t.Context(), plan, options(dir))
			require.Error(t, err, "call %d, %s", k, fault)
			require.NoFileExists(t, filepath.Join(dir, controlFile))
			requireAgain(t, s, sum, dir, c, ts)
		}
	}
}

// A backup that is being restored is marked; one that expired after the plan
// was made is refused before anything is touched; who may not write restores.
func TestRunMarksTheBackup(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 7))
	s := newSynthetic(t, nil)
	c := content{"PG_VERSION": []byte("15\n"), "base/5/1": someData(rng, 9000), "backup_label": []byte("x"), controlFile: someData(rng, 8192)}
	sum := s.backup(c, repo.Full, 20_000, nil)
	marked := 0
	o := options(filepath.Join(t.TempDir(), "data"))
	o.fault = func(string) error {
		uses, err := s.epoch.Repository().Uses(t.Context())
		require.NoError(t, err)
		marked += len(uses)
		return nil
	}
	_, err := Run(t.Context(), s.plan(sum), o)
	require.NoError(t, err)
	require.Positive(t, marked)
	uses, err := s.epoch.Repository().Uses(t.Context())
	require.NoError(t, err)
	require.Empty(t, uses)

	plan := s.plan(sum)
	plan.epoch = s.reopen(faulty.New(s.store, faulty.Rule{Op: faulty.Put, Fault: faulty.Deny}))
	_, err = Run(t.Context(), plan, options(filepath.Join(t.TempDir(), "data")))
	require.NoError(t, err)

	_, err = s.epoch.DeleteSummaries(t.Context(), sum.Label)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "data")
	_, err = Run(t.Context(), s.plan(sum), options(dir))
	require.ErrorIs(t, err, repo.ErrNotFound)
	require.NoDirExists(t, dir)
}

func requireAgain(t *testing.T, s *synthetic, sum repo.Summary, dir string, c content, ts string) {
	t.Helper()
	_, err := Run(t.Context(), s.plan(sum), options(dir))
	require.NoError(t, err)
	requireRestored(t, dir, c, map[string]string{syntheticTS: ts})
	require.NoError(t, os.RemoveAll(ts))
}

// TestRunFindsEveryDamage flips bytes in every object of the backup.
func TestRunFindsEveryDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	s := newSynthetic(t, nil)
	c := content{
		"PG_VERSION": []byte("15\n"), "base/5/1": someData(rng, 30_000), "base/5/2": someData(rng, 9000), "backup_label": []byte("x"),
		controlFile: someData(rng, 8192),
	}
	sum := s.backup(c, repo.Full, 20_000, nil)
	var keys []string
	require.NoError(t, s.store.List(t.Context(), fmt.Sprintf("%s/backup/", syntheticID), object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	}))
	require.Greater(t, len(keys), 2)
	for _, key := range keys {
		good := readAll(t, s.store, key)
		for _, at := range []int{0, 1, len(good) / 3, len(good) / 2, len(good) - 2, len(good) - 1, -1} {
			bad := append([]byte{}, good...)
			if at >= 0 {
				bad[at] ^= 1 << rng.IntN(8)
			} else {
				bad = bad[:len(bad)/2] // cut short
			}
			put(t, s.store, key, bad)
			dir := filepath.Join(t.TempDir(), "data")
			_, err := Run(t.Context(), s.plan(sum), options(dir))
			require.ErrorIs(t, err, repo.ErrIntegrity, "%s at %d", key, at)
			require.ErrorContains(t, err, key)
			require.NoFileExists(t, filepath.Join(dir, controlFile))
			put(t, s.store, key, good)
		}
		require.NoError(t, s.store.Delete(t.Context(), key))
		dir := filepath.Join(t.TempDir(), "data")
		_, err := Run(t.Context(), s.plan(sum), options(dir))
		require.ErrorIs(t, err, repo.ErrIntegrity, "%s is gone", key)
		put(t, s.store, key, good)
	}
}

func put(t *testing.T, store object.Store, key string, b []byte) {
	t.Helper()
	_, err := store.Put(t.Context(), key, strings.NewReader(string(b)), object.PutOptions{})
	require.NoError(t, err)
}
