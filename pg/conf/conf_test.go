package conf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, dir string, files map[string]string) {
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

func TestLookup(t *testing.T) {
	const name = "recovery_target_timeline"
	for what, c := range map[string]struct {
		files map[string]string
		value string
		set   bool
		fails string
	}{
		"nowhere":       {files: map[string]string{"postgresql.conf": "# " + name + " = 3\nport=1\n\n"}},
		"plain":         {files: map[string]string{"postgresql.conf": name + " = latest # or not"}, value: "latest", set: true},
		"no equals":     {files: map[string]string{"postgresql.conf": "  Recovery_Target_Timeline 'cur''re\\156t'\r\n"}, value: "cur'rent", set: true},
		"the last":      {files: map[string]string{"postgresql.conf": name + " = 2\n" + name + "=3"}, value: "3", set: true},
		"auto.conf":     {files: map[string]string{"postgresql.conf": name + " = 2", "postgresql.auto.conf": name + " = '4'"}, value: "4", set: true},
		"include":       {files: map[string]string{"postgresql.conf": "include 'a/b.conf'", "a/b.conf": "include_dir = 'd'", "a/d/1.conf": name + "=5", "a/d/2.txt": name + "=6"}, value: "5", set: true},
		"not there":     {files: map[string]string{"postgresql.conf": "include_if_exists 'nothing'\n" + name + "=5"}, value: "5", set: true},
		"missing":       {files: map[string]string{"postgresql.conf": "\ninclude 'nothing'"}, fails: "postgresql.conf:2: "},
		"circle":        {files: map[string]string{"postgresql.conf": "include 'postgresql.conf'"}, fails: "deep"},
		"no file":       {files: map[string]string{"postgresql.auto.conf": name + "=5"}, fails: "no such file"},
		"open quote":    {files: map[string]string{"postgresql.conf": name + " = 'latest"}, fails: "does not end"},
		"command":       {files: map[string]string{"postgresql.conf": name + "=1", "postmaster.opts": `/bin/postgres "-D" "/x y" "-c" "` + name + `=7"` + "\n"}, value: "7", set: true},
		"command, long": {files: map[string]string{"postgresql.conf": name + "=1", "postmaster.opts": `/bin/postgres "--recovery-target-timeline=8"` + "\n"}, value: "8", set: true},
		"command, one":  {files: map[string]string{"postgresql.conf": name + "=1", "postmaster.opts": `/bin/postgres "-c` + name + `=9"` + "\n"}, value: "9", set: true},
		"relative":      {files: map[string]string{"postmaster.opts": `/bin/postgres "--config-file=x.conf"`}, fails: "relative"},
		"quotes":        {files: map[string]string{"postmaster.opts": `/bin/postgres "-c" "a="b"c"`}, fails: "quotes"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			value, set, err := Lookup(dir, name)
			if c.fails != "" {
				require.ErrorContains(t, err, c.fails)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.value, value)
			require.Equal(t, c.set, set)
		})
	}
	t.Run("config_file", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{
			"etc/my.conf": name + " = 11", "data/postmaster.opts": `/bin/postgres "--config-file=` + dir + `/etc/my.conf"`,
		})
		value, _, err := Lookup(filepath.Join(dir, "data"), name)
		require.NoError(t, err)
		require.Equal(t, "11", value)
	})
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"", "a=b", "a 'b' # c", `a = '\101'`, "a '", "include 'x'", "=", `x '\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		name, _, err := parseLine(line)
		if err != nil {
			require.Empty(t, name)
		}
	})
}
