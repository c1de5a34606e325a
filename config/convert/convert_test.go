package convert

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/config"
)

var update = flag.Bool("update", false, "write golden files again")

// TestGolden converts PGO's and pgBackRest's documented kinds of configuration,
// and others.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, path := range inputs {
		name := strings.TrimSuffix(filepath.Base(path), ".in")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			r, err := from(name, data)
			require.NoError(t, err)
			out, err := r.YAML(filepath.Base(path))
			require.NoError(t, err)
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, out, 0o666))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(out))

			_, err = config.Parse(golden, out)
			require.NoError(t, err, "walkeep reads it")
			for _, secret := range []string{"zWaf6XtpjIVZC5444yXB", "AKIAEXAMPLE", "verysecretkey", "YXpLZXk="} {
				require.NotContains(t, string(out), secret)
			}
		})
	}
}

func from(name string, data []byte) (*Result, error) {
	if strings.HasPrefix(name, "pgo") {
		return FromPGO(data, "")
	}
	return FromPgBackRest(data, "")
}

// TestPGODocumented is what the issue asks for, value by value.
func TestPGODocumented(t *testing.T) {
	data, err := os.ReadFile("testdata/pgo-schedules.in")
	require.NoError(t, err)
	r, err := FromPGO(data, "hippo")
	require.NoError(t, err)
	repo, ok := r.Config.Repo("repo1")
	require.True(t, ok)
	require.Equal(t, "my-bucket", repo.S3.Bucket)
	require.Equal(t, "ca-central-1", repo.S3.Region)
	require.Equal(t, "0 1 * * 0", repo.Schedules.Full.String())
	require.Equal(t, "0 1 * * 1-6", repo.Schedules.Differential.String())
	require.Equal(t, 30, repo.Retention.Full)
	require.Equal(t, config.RetainTime, repo.Retention.FullType)
	require.Equal(t, "UTC", r.Config.Location().String())
	require.Equal(t, "pgbackrest/postgres-operator/hippo/repo1/walkeep/hippo", repo.Prefix, "beside pgBackRest's own, never in it")
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fn   func([]byte, string) (*Result, error)
		data string
		want error
	}{
		"not YAML":                  {FromPGO, "a: [", ErrInput},
		"another resource":          {FromPGO, "kind: Secret\nmetadata: {name: x}", ErrNothing},
		"no backups":                {FromPGO, "kind: PostgresCluster\nmetadata: {name: x}", ErrNothing},
		"no repositories":           {FromPGO, "kind: PostgresCluster\nmetadata: {name: x}\nspec: {backups: {pgbackrest: {global: {a: b}}}}", ErrNothing},
		"two clusters":              {FromPGO, "kind: PostgresCluster\nmetadata: {name: x}\n---\nkind: PostgresCluster\nmetadata: {name: y}", ErrInput},
		"empty":                     {FromPGO, "", ErrNothing},
		"two stanzas":               {FromPgBackRest, "[a]\npg1-path=/a\n[b]\npg1-path=/b\n", ErrInput},
		"not ini":                   {FromPgBackRest, "this is not ini", ErrInput},
		"large":                     {FromPgBackRest, strings.Repeat("#", maxInput+1), ErrInput},
		"a repository it cannot do": {FromPgBackRest, "[a]\nrepo1-type=sftp\npg1-path=/a\n", ErrNothing},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.fn([]byte(c.data), "")
			require.ErrorIs(t, err, c.want)
		})
	}
	_, err := FromPgBackRest([]byte("[a]\npg1-path=/a\n"), "b")
	require.ErrorIs(t, err, ErrNothing)
	r, err := FromPgBackRest([]byte("[a]\npg1-path=/a\n[b]\npg1-path=/b\n"), "b")
	require.NoError(t, err)
	require.Equal(t, "/b", r.Config.Postgres.Nodes[0].PGData)
	names, err := Stanzas([]byte("[b]\n[global]\n[a:backup]\nx=y\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, names)
}

// fuzz: what comes out is read by walkeep, unless a note says what to fill in,
// and no line of the input can leave its comment.
func fuzz(t *testing.T, r *Result, err error) {
	if err != nil {
		return
	}
	out, err := r.YAML("fuzz\ncluster: injected")
	require.NoError(t, err)
	comments := true
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "#") {
			comments = false
		}
		require.True(t, comments || !strings.HasPrefix(line, "#"))
	}
	if _, err := config.Parse("fuzz", out); err != nil {
		require.True(t, r.Has(NeedsYou), "%s\n%v", out, err)
	}
}

func FuzzFromPGO(f *testing.F) {
	seed(f, "testdata/pgo*.in")
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := FromPGO(data, "")
		fuzz(t, r, err)
	})
}

func FuzzFromPgBackRest(f *testing.F) {
	seed(f, "testdata/pgbackrest*.in")
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := FromPgBackRest(data, "")
		fuzz(t, r, err)
	})
}

func seed(f *testing.F, pattern string) {
	paths, err := filepath.Glob(pattern)
	require.NoError(f, err)
	for _, p := range paths {
		data, err := os.ReadFile(p)
		require.NoError(f, err)
		f.Add(data)
	}
}
