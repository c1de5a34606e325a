package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
)

// TestRefused compares the whole message for each wrong file with a golden
// one, and that no message shows a secret.
func TestRefused(t *testing.T) {
	for _, path := range glob(t, "testdata/refused/*.txtar") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			require.NoError(t, err)
			require.Len(t, archive.Files, 2)
			_, err = Parse("walkeep.yaml", archive.Files[0].Data)
			require.ErrorIs(t, err, ErrInvalid)
			require.NotContains(t, strings.ToLower(err.Error()), "hunter2")
			got := err.Error() + "\n"
			if *update {
				archive.Files[1].Data = []byte(got)
				require.NoError(t, os.WriteFile(path, txtar.Format(archive), 0o644))
				return
			}
			require.Equal(t, string(archive.Files[1].Data), got)
		})
	}
}

// perMachine finds the defaults that depend on the machine.
var perMachine = regexp.MustCompile(`((?:backup|restore):\n  workers: )\d+`)

// TestAccepted compares the configuration in effect with a golden one, which
// must mean the same when it is read again.
func TestAccepted(t *testing.T) {
	for _, path := range glob(t, "testdata/accepted/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := Load(path)
			require.NoError(t, err)
			got, err := c.YAML()
			require.NoError(t, err)
			again, err := Parse("again", got)
			require.NoError(t, err, "%s", got)
			require.Equal(t, c, again)

			golden := strings.TrimSuffix(path, ".yaml") + ".effective"
			got = perMachine.ReplaceAll(got, []byte("${1}N"))
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		})
	}
}

func TestValues(t *testing.T) {
	c, err := Load("testdata/accepted/everything.yaml")
	require.NoError(t, err)
	require.Equal(t, 2, c.Required())
	require.Equal(t, "Europe/Berlin", c.Location().String())
	r, ok := c.Repo("repo2")
	require.True(t, ok)
	require.Equal(t, "s3", r.Kind())
	require.Equal(t, "007", r.S3.Bucket)
	require.Equal(t, Duration(90*time.Minute), r.Retry.Total)
	require.Equal(t, ByteRate(50_000_000), r.Limit.Upload)
	require.Equal(t, ByteRate(1<<30), r.Limit.Download)
	next := r.Schedules.Full.Next(time.Date(2026, 11, 22, 12, 0, 0, 0, c.Location()))
	require.Equal(t, "2026-11-29T02:30:00+01:00", next.Format(time.RFC3339))
	other, ok := c.Repo("repo1")
	require.True(t, ok)
	require.Equal(t, r.Encryption, other.Encryption)
	require.Equal(t, "hippo", other.Prefix)
	require.Equal(t, 1, other.Compression.Level)

	c, err = Load("testdata/accepted/design.yaml")
	require.NoError(t, err)
	require.Equal(t, 4, c.Required())
	_, ok = c.Repo("repo5")
	require.False(t, ok)
}

func TestLoadWithoutFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTooLarge(t *testing.T) {
	_, err := Parse("big", make([]byte, maxFileSize+1))
	require.ErrorIs(t, err, ErrInvalid)
}

// FuzzParse: no input makes Parse panic, and what it accepts it accepts again
// from the configuration in effect.
func FuzzParse(f *testing.F) {
	for _, path := range append(glob(f, "testdata/accepted/*.yaml"), glob(f, "testdata/refused/*.txtar")...) {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		if a := txtar.Parse(data); len(a.Files) > 0 {
			data = a.Files[0].Data
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz", data)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			require.NotEmpty(t, err.Error())
			return
		}
		text, err := c.YAML()
		require.NoError(t, err)
		again, err := Parse("again", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, c, again)
	})
}

func FuzzConnInfo(f *testing.F) {
	f.Add("host=pg-0 user='o''x' passfile = /a\\ b")
	f.Add("postgresql://u:p@h1:1,h2/db?sslmode=require")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseConnInfo(s) })
}

func TestConnInfo(t *testing.T) {
	for in, want := range map[string]map[string]string{
		``:                            {},
		`host=a  port = 5433`:         {"host": "a", "port": "5433"},
		`user='a b\'c' dbname=x\ y`:   {"user": `a b'c`, "dbname": "x y"},
		`passfile='' host=/tmp`:       {"passfile": "", "host": "/tmp"},
		`postgres://u@h:1,i:2/d?a=b`:  {"user": "u", "a": "b"},
		`postgresql://u:p%40@h/d`:     {"user": "u", "password": "p%40"},
		`postgresql:///d?host=/a%20b`: {"host": "/a b"},
	} {
		got, err := parseConnInfo(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"host", "host=a user", "host='a", "=x", "a b=c", "postgres://h/?a=%zz"} {
		_, err := parseConnInfo(in)
		require.Error(t, err, in)
	}
}

func glob(t testing.TB, pattern string) []string {
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	return paths
}
