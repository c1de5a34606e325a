package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

func deltaOptions(dir string) Options {
	o := options(dir)
	o.Delta = true
	return o
}

// inPlace is a restored directory with a tablespace, to be restored over.
type inPlace struct {
	s       *synthetic
	c       content
	sum     repo.Summary
	dir, ts string
}

func newInPlace(t *testing.T, rng *rand.Rand) *inPlace {
	t.Helper()
	p := &inPlace{s: newSynthetic(t, nil), c: syntheticContent(rng), dir: filepath.Join(t.TempDir(), "data"), ts: filepath.Join(t.TempDir(), "ts")}
	control := t.TempDir()
	require.NoError(t, waltest.WriteControl(control, waltest.Control(syntheticID, pg.StateProduction, 1, 16<<20)))
	b, err := os.ReadFile(filepath.Join(control, controlFile))
	require.NoError(t, err)
	p.c[controlFile] = b
	p.c[syntheticVer+"/5/3000"] = someData(rng, 2<<20)
	p.sum = p.s.backup(p.c, repo.Full, 300_000, map[string]string{syntheticTS: p.ts})
	return p
}

func (p *inPlace) restore(t *testing.T, o Options) error {
	t.Helper()
	_, err := Run(t.Context(), p.s.plan(p.sum), o)
	return err
}

func (p *inPlace) requireRestored(t *testing.T) {
	t.Helper()
	requireRestored(t, p.dir, p.c, map[string]string{syntheticTS: p.ts})
	requireSameTree(t, p)
}

// requireSameTree looks at what requireRestored does not: directories, links,
// modes, and times.
func requireSameTree(t *testing.T, p *inPlace) {
	t.Helper()
	want := map[string]bool{}
	for _, path := range p.c.order() {
		want[path] = true
	}
	require.NoError(t, filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, _ := filepath.Rel(p.dir, path)
		if d.IsDir() && rel != "." {
			require.True(t, want[rel], "unexpected directory %s", rel)
			st, err := d.Info()
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o700), st.Mode().Perm(), rel)
		}
		return nil
	}))
	for path := range want {
		st, err := os.Lstat(filepath.Join(p.dir, path))
		if path == "tablespace_map" {
			require.ErrorIs(t, err, fs.ErrNotExist)
			continue
		}
		require.NoError(t, err, path)
		if st.Mode().IsRegular() && path != "postgresql.auto.conf" {
			require.True(t, st.ModTime().Equal(p.s.at.Add(-time.Hour).Add(123456789)), path)
		}
	}
}

// mutate does something to a data directory that a server, a crash or an
// administrator could have done, and says what.
func mutate(t *testing.T, rng *rand.Rand, dir string) string {
	t.Helper()
	var files, dirs []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == dir:
		case d.Type().IsRegular() && d.Name() != "PG_VERSION":
			// What somebody has a link to since an earlier change would change for
			// him too, by our hand.
			st, err := d.Info()
			if err == nil && st.Sys().(*syscall.Stat_t).Nlink == 1 {
				files = append(files, path)
			}
		case d.IsDir() && filepath.Dir(path) != dir:
			dirs = append(dirs, path)
		}
		return nil
	}))
	if len(files) == 0 {
		return "nothing"
	}
	f := files[rng.IntN(len(files))]
	d := filepath.Dir(f)
	if len(dirs) > 0 {
		d = dirs[rng.IntN(len(dirs))]
	}
	what := rng.IntN(14)
	do := func(err error) { require.NoError(t, err, "%d %s", what, f) }
	switch what {
	case 0, 1, 2: // pages change
		b, err := os.ReadFile(f)
		do(err)
		for range 1 + rng.IntN(5) {
			if len(b) > 0 {
				b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
			}
		}
		do(os.WriteFile(f, b, 0o600))
	case 3: // truncated
		st, err := os.Stat(f)
		do(err)
		do(os.Truncate(f, rng.Int64N(st.Size()+1)))
	case 4: // grew
		w, err := os.OpenFile(f, os.O_APPEND|os.O_WRONLY, 0)
		do(err)
		_, err = w.Write(someData(rng, 1+rng.IntN(2<<20)))
		do(err)
		do(w.Close())
	case 5: // a hole reads as zeroes
		st, err := os.Stat(f)
		do(err)
		do(os.Truncate(f, 0))
		do(os.Truncate(f, st.Size()))
	case 6:
		do(os.Remove(f))
	case 7: // a new relation, a new directory
		do(os.WriteFile(filepath.Join(d, fmt.Sprintf("%d", rng.IntN(100000))), someData(rng, rng.IntN(30000)), 0o640))
		do(os.MkdirAll(filepath.Join(d, fmt.Sprintf("new%d", rng.IntN(1000)), "deep"), 0o755))
	case 8: // a file became a directory
		do(os.Remove(f))
		do(os.MkdirAll(filepath.Join(f, "x", "y"), 0o700))
	case 9: // a file became a link to somebody's file
		other := filepath.Join(t.TempDir(), "somebody's")
		do(os.WriteFile(other, []byte("not ours"), 0o600))
		do(os.Remove(f))
		do(os.Symlink(other, f))
		t.Cleanup(func() {
			b, err := os.ReadFile(other)
			require.NoError(t, err)
			require.Equal(t, "not ours", string(b))
		})
	case 10: // somebody has a hard link
		other := filepath.Join(t.TempDir(), "link")
		do(os.Link(f, other))
		before, err := os.ReadFile(f)
		do(err)
		b := append([]byte("changed"), before...)
		do(os.WriteFile(f, b, 0o600))
		t.Cleanup(func() {
			after, err := os.ReadFile(other)
			require.NoError(t, err)
			require.Equal(t, string(b), string(after))
		})
	case 11: // modes and times
		do(os.Chmod(f, fs.FileMode(rng.IntN(0o1000))))
		do(os.Chtimes(f, time.Now(), time.Now()))
		do(os.Chmod(d, 0o500))
	case 12: // a directory goes, or becomes a file
		do(os.RemoveAll(d))
		if rng.IntN(2) == 0 {
			do(os.WriteFile(d, []byte("was a directory"), 0o600))
		}
	case 13: // the remains of a server
		do(os.WriteFile(filepath.Join(dir, "postmaster.opts"), []byte("postgres"), 0o600))
		do(os.WriteFile(filepath.Join(dir, "backup_label.old"), nil, 0o600))
		do(os.Symlink("/nowhere", filepath.Join(dir, fmt.Sprintf("loose%d", rng.Int64()))))
	}
	return fmt.Sprintf("%d %s %s", what, f, d)
}

// TestDeltaEqualsFresh: whatever was there before, after a restore in place the
// directory is what a restore into an empty one makes.
func TestDeltaEqualsFresh(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(20, seed))
	p := newInPlace(t, rng)
	require.NoError(t, p.restore(t, deltaOptions(p.dir)), "into nothing")
	p.requireRestored(t)
	for round := range 30 {
		var did []string
		for range rng.IntN(6) {
			root := p.dir
			if rng.IntN(5) == 0 {
				root = filepath.Join(p.ts, "PG_15_202209061")
			}
			if _, err := os.Stat(filepath.Join(root, "5")); root != p.dir && err != nil {
				continue
			}
			did = append(did, mutate(t, rng, root))
		}
		for _, d := range []string{"base", "global"} { // or it is no data directory
			if st, err := os.Lstat(filepath.Join(p.dir, d)); err != nil || !st.IsDir() {
				_ = os.Remove(filepath.Join(p.dir, d))
				require.NoError(t, os.Mkdir(filepath.Join(p.dir, d), 0o700))
			}
		}
		if err := p.restore(t, deltaOptions(p.dir)); errors.Is(err, ErrNotEmpty) && strings.Contains(err.Error(), "does not lead there") {
			require.NoError(t, os.RemoveAll(p.ts)) // its link was among what changed
			err = p.restore(t, deltaOptions(p.dir))
			require.NoError(t, err)
		} else {
			require.NoError(t, err, "round %d: %q", round, did)
		}
		p.requireRestored(t)
	}
}

// TestDeltaIncremental restores each of several backups, whose files share
// chunks in parts, over each other one.
func TestDeltaIncremental(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 2))
	p := newInPlace(t, rng)
	links := map[string]string{syntheticTS: p.ts}
	sums, contents := []repo.Summary{p.sum}, []content{p.c}
	for _, kind := range []repo.BackupType{repo.Differential, repo.Incremental, repo.Incremental} {
		c := content{}
		for path, b := range p.c {
			c[path] = b
		}
		for _, path := range []string{"base/5/1250", "base/5/1300", "base/5/1301"} {
			data := append([]byte{}, c[path]...)
			for range 60 {
				copy(data[rng.IntN(len(data)/8192)*8192:], someData(rng, 8192))
			}
			c[path] = data
		}
		p.c = c
		sums, contents = append(sums, p.s.backup(c, kind, 300_000, links)), append(contents, c)
	}
	for range 20 {
		i := rng.IntN(len(sums))
		p.sum, p.c = sums[i], contents[i]
		for range rng.IntN(2) {
			path := filepath.Join(p.dir, "base/5/1300")
			if b, err := os.ReadFile(path); err == nil {
				b[rng.IntN(len(b))]++
				require.NoError(t, os.WriteFile(path, b, 0o600))
			}
		}
		p.s.at = p.sum.Start
		require.NoError(t, p.restore(t, deltaOptions(p.dir)))
		p.requireRestored(t)
	}
}

// What is there is not fetched.
func TestDeltaFetchesOnlyWhatDiffers(t *testing.T) {
	rng := rand.New(rand.NewPCG(22, 2))
	p := newInPlace(t, rng)
	require.NoError(t, p.restore(t, options(p.dir)))
	count := faulty.New(p.s.store)
	plan := p.s.plan(p.sum)
	plan.epoch = p.s.reopen(count)
	packs := func() (n int) {
		for _, c := range count.Calls() {
			if strings.Contains(c.String(), "pack") {
				n++
			}
		}
		return n
	}
	_, err := Run(t.Context(), plan, deltaOptions(p.dir))
	require.NoError(t, err)
	p.requireRestored(t)
	require.LessOrEqual(t, packs(), 3, "backup_label, pg_control and postgresql.auto.conf, which we changed")

	b, err := os.ReadFile(filepath.Join(p.dir, "base/5/1250"))
	require.NoError(t, err)
	b[2<<20] ^= 1
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "base/5/1250"), b, 0o600))
	before := packs()
	_, err = Run(t.Context(), plan, deltaOptions(p.dir))
	require.NoError(t, err)
	p.requireRestored(t)
	require.LessOrEqual(t, packs()-before, 4, "one chunk more")
}

// Stopped between any two steps: never startable, and the next run completes
// it; a plain one does not take it over.
func TestDeltaStopped(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 3))
	p := newInPlace(t, rng)
	stopped := errors.New("stopped")
	for _, step := range []string{"marked", "invalidated", "swept", "written", "durable", "control", "unmarked"} {
		require.NoError(t, p.restore(t, deltaOptions(p.dir)))
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, "base/5/1250"), []byte("changed"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, "base/5/new"), []byte("new"), 0o600))
		o := deltaOptions(p.dir)
		o.fault = func(at string) error {
			if at == step {
				return stopped
			}
			return nil
		}
		require.ErrorIs(t, p.restore(t, o), stopped)
		_, err := os.Lstat(filepath.Join(p.dir, controlFile))
		switch step {
		case "marked": // nothing was touched
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(p.dir, "base/5/new"))
		case "control", "unmarked": // complete
			require.NoError(t, err)
		default:
			require.ErrorIs(t, err, fs.ErrNotExist, step)
		}
		if step != "unmarked" {
			err := p.restore(t, options(p.dir))
			require.ErrorIs(t, err, ErrNotEmpty)
			require.ErrorContains(t, err, "--delta")
		}
		require.NoError(t, p.restore(t, deltaOptions(p.dir)), step)
		p.requireRestored(t)
	}
}

func TestDeltaEveryStoreCallFails(t *testing.T) {
	rng := rand.New(rand.NewPCG(24, 4))
	p := newInPlace(t, rng)
	spoil := func() {
		require.NoError(t, p.restore(t, deltaOptions(p.dir)))
		for _, f := range []string{"base/5/1250", "base/5/1302", "pg_xact/0000"} {
			b, err := os.ReadFile(filepath.Join(p.dir, f))
			require.NoError(t, err)
			b[rng.IntN(len(b))] ^= 1
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, f), b, 0o600))
		}
	}
	spoil()
	count := faulty.New(p.s.store)
	plan := p.s.plan(p.sum)
	plan.epoch = p.s.reopen(count)
	_, err := Run(t.Context(), plan, deltaOptions(p.dir))
	require.NoError(t, err)
	calls := len(count.Calls())
	require.Greater(t, calls, 4)
	untouched := 0
	defer func() { require.Positive(t, untouched, "the manifest comes before anything is touched") }()
	for k := 1; k <= calls; k++ {
		for _, fault := range []faulty.Fault{faulty.Fail, faulty.Truncate} {
			spoil()
			plan.epoch = p.s.reopen(faulty.New(p.s.store, faulty.Rule{At: k, Fault: fault, Bytes: 100}))
			_, err := Run(t.Context(), plan, deltaOptions(p.dir))
			if err == nil { // it was shorter anyway, or only the mark of use
				p.requireRestored(t)
				continue
			}
			if _, err := os.Lstat(filepath.Join(p.dir, controlFile)); err == nil { // nothing was touched
				b, err := os.ReadFile(filepath.Join(p.dir, "base/5/1250"))
				require.NoError(t, err)
				require.NotEqual(t, p.c["base/5/1250"], b)
				untouched++
			}
			require.NoError(t, p.restore(t, deltaOptions(p.dir)))
			p.requireRestored(t)
		}
	}
}

// TestDeltaKilled kills restores in place with SIGKILL at random moments.
func TestDeltaKilled(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, uint64(time.Now().UnixNano())))
	storeDir := filepath.Join(t.TempDir(), "repo")
	store, err := filesystem.New(filesystem.Options{Path: storeDir, Create: true})
	require.NoError(t, err)
	p := newInPlace(t, rng)
	p.s = newSynthetic(t, store)
	p.sum = p.s.backup(p.c, repo.Full, 300_000, map[string]string{syntheticTS: p.ts})
	b, err := json.Marshal(p.sum)
	require.NoError(t, err)
	summary := filepath.Join(t.TempDir(), "summary")
	require.NoError(t, os.WriteFile(summary, b, 0o600))
	run := func(limit time.Duration) (killed bool) {
		cmd := exec.Command(os.Args[0], storeDir, summary, p.dir)
		cmd.Env = append(os.Environ(), childVariable+"=delta")
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
			return true
		}
		require.NoError(t, err)
		return false
	}
	require.False(t, run(time.Minute))
	spoil := func() {
		for _, f := range []string{"base/5/1250", "base/5/1300", "base/5/1302", "base/16384/2000"} {
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, f), someData(rng, 1<<20), 0o600))
		}
		for i := range 50 {
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, fmt.Sprintf("base/5/x%d", i)), nil, 0o600))
		}
	}
	spoil()
	began := time.Now()
	require.False(t, run(time.Minute))
	whole := time.Since(began)
	kills := 0
	for range 12 {
		spoil()
		before, err := os.ReadFile(filepath.Join(p.dir, "base/5/1250"))
		require.NoError(t, err)
		for run(time.Duration(rng.Int64N(int64(whole)))) {
			kills++
			if _, err := os.Lstat(filepath.Join(p.dir, controlFile)); err == nil {
				// Untouched, or complete; nothing in between.
				now, err := os.ReadFile(filepath.Join(p.dir, "base/5/1250"))
				require.NoError(t, err)
				if string(now) != string(before) {
					require.Equal(t, string(p.c["base/5/1250"]), string(now))
					require.NoFileExists(t, filepath.Join(p.dir, "base/5/x0"))
				}
			}
			if kills%4 == 0 {
				whole += whole / 10
			}
		}
		requireComplete(t, p.dir, p.c, p.ts)
	}
	require.Positive(t, kills)
}

func TestDeltaKeeps(t *testing.T) {
	p := newInPlace(t, rand.New(rand.NewPCG(26, 6)))
	p.c["postgresql.conf"] = []byte("# of the backup\n")
	p.sum = p.s.backup(p.c, repo.Full, 300_000, map[string]string{syntheticTS: p.ts})
	require.NoError(t, p.restore(t, deltaOptions(p.dir)))
	put := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(p.dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600))
	}
	put("postgresql.conf", "# mine\n")
	put("log/a/b.log", "what happened")
	put("other/x", "goes")
	o := deltaOptions(p.dir)
	o.Keep = []string{"postgresql.conf", "log", "pg_hba.conf"}
	require.NoError(t, p.restore(t, o))
	require.NoDirExists(t, filepath.Join(p.dir, "other"))
	p.c["postgresql.conf"], p.c["log/a/b.log"] = []byte("# mine\n"), []byte("what happened")
	requireRestored(t, p.dir, p.c, map[string]string{syntheticTS: p.ts})
	list, err := os.ReadFile(filepath.Join(p.dir, "backup_manifest"))
	require.NoError(t, err)
	require.Contains(t, string(list), `"log/a/b.log", "Size": 13`)
	require.Equal(t, 1, strings.Count(string(list), `"postgresql.conf"`))
	for _, name := range []string{"base", "pg_wal", "a/b", "..", "", "postgresql.auto.conf"} {
		o.Keep = []string{name}
		require.ErrorIs(t, p.restore(t, o), ErrBadRequest, name)
	}
}

func TestDeltaRefuses(t *testing.T) {
	p := newInPlace(t, rand.New(rand.NewPCG(27, 7)))
	require.NoError(t, p.restore(t, deltaOptions(p.dir)))
	untouched := func(err error, is error, text string) {
		t.Helper()
		require.ErrorIs(t, err, is)
		require.ErrorContains(t, err, text)
		require.FileExists(t, filepath.Join(p.dir, controlFile))
		require.NoFileExists(t, filepath.Join(p.dir, markerFile))
	}
	pid := filepath.Join(p.dir, "postmaster.pid")

	// A server: a process in that directory, whatever it is called.
	server := exec.Command("sleep", "600")
	server.Dir = p.dir
	require.NoError(t, server.Start())
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	require.NoError(t, os.WriteFile(pid, []byte(strconv.Itoa(server.Process.Pid)+"\n"+p.dir+"\n"), 0o600))
	untouched(p.restore(t, deltaOptions(p.dir)), ErrServerRunning, "stop it first")
	// Another process has its number now.
	elsewhere := exec.Command("sleep", "600")
	elsewhere.Dir = "/"
	require.NoError(t, elsewhere.Start())
	defer func() { _ = elsewhere.Process.Kill(); _ = elsewhere.Wait() }()
	require.NoError(t, os.WriteFile(pid, []byte(strconv.Itoa(elsewhere.Process.Pid)+"\n"), 0o600))
	if err := p.restore(t, deltaOptions(p.dir)); err != nil { // tests may run in a container
		untouched(err, ErrServerRunning, "remove that file")
		require.NoError(t, os.Remove(pid))
	}

	// Other directories than a data directory of this cluster.
	other := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o600))
	err := p.restore(t, deltaOptions(other))
	require.ErrorIs(t, err, ErrNotEmpty)
	require.ErrorContains(t, err, "no data directory")
	foreign := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.MkdirAll(filepath.Join(foreign, "base"), 0o700))
	require.NoError(t, waltest.WriteControl(foreign, waltest.Control(syntheticID+1, pg.StateProduction, 1, 16<<20)))
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "PG_VERSION"), []byte("15\n"), 0o600))
	err = p.restore(t, deltaOptions(foreign))
	require.ErrorIs(t, err, ErrBadRequest)
	require.ErrorContains(t, err, "another cluster")
	require.NoFileExists(t, filepath.Join(foreign, markerFile))

	// A tablespace that is not this one's: a clone that forgot the map.
	clone := filepath.Join(t.TempDir(), "clone")
	err = p.restore(t, deltaOptions(clone))
	require.ErrorIs(t, err, ErrNotEmpty)
	require.ErrorContains(t, err, "may be another server's")
	require.FileExists(t, filepath.Join(p.ts, "PG_15_202209061/5/3000"))

	// A directory that is a link, without being told.
	away := filepath.Join(t.TempDir(), "pg_wal")
	require.NoError(t, os.Rename(filepath.Join(p.dir, "pg_wal"), away))
	require.NoError(t, os.Symlink(away, filepath.Join(p.dir, "pg_wal")))
	untouched(p.restore(t, deltaOptions(p.dir)), ErrBadRequest, "--link-map pg_wal="+away)
}

// Directories elsewhere, into nothing and in place.
func TestLinks(t *testing.T) {
	p := newInPlace(t, rand.New(rand.NewPCG(28, 8)))
	p.c["pg_wal/archive_status/keep"] = []byte("x")
	p.sum = p.s.backup(p.c, repo.Full, 300_000, map[string]string{syntheticTS: p.ts})
	away := filepath.Join(t.TempDir(), "fast", "wal")
	o := options(p.dir)
	o.Links = map[string]string{"pg_wal": away}
	check := func() {
		t.Helper()
		to, err := os.Readlink(filepath.Join(p.dir, "pg_wal"))
		require.NoError(t, err)
		require.Equal(t, away, to)
		st, err := os.Stat(away)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), st.Mode().Perm())
		names, err := os.ReadDir(away)
		require.NoError(t, err)
		require.Len(t, names, 1)
		b, err := os.ReadFile(filepath.Join(p.dir, "pg_wal/archive_status/keep"))
		require.NoError(t, err)
		require.Equal(t, "x", string(b))
	}
	require.NoError(t, p.restore(t, o))
	check()
	require.NoError(t, os.WriteFile(filepath.Join(away, "000000010000000000000001"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(away, "archive_status/keep"), []byte("y"), 0o600))
	o.Delta = true
	require.NoError(t, p.restore(t, o))
	check()

	for name, dir := range map[string]string{"nothing": away, "global": away, "a/b": away, "pg_wal": "relative", "pg_xact": p.dir + "/x", "base": p.ts} {
		o.Links = map[string]string{name: dir}
		require.ErrorIs(t, p.restore(t, o), ErrBadRequest, name)
	}
}
