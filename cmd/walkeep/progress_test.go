package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1763773200, 0)
	p := newProgress(&out, func() time.Time { return now })
	p.Stage("copying")
	p.Add(0)
	now = now.Add(2 * time.Second)
	p.Add(50 << 20)
	line := func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.line()
	}
	require.Equal(t, "copying: 50 MiB, 25 MiB/s", line())
	p.Total(200 << 20)
	require.Equal(t, "copying: 50 MiB of 200 MiB (25 %), 25 MiB/s, 6s left", line())
	p.Add(200 << 20)
	require.Equal(t, "copying: 250 MiB, 125 MiB/s", line(), "files grow")
	p.close()
	p.close()
	p.Stage("too late")
	require.Equal(t, "copying\n", out.String())
}

func TestParseAnnotations(t *testing.T) {
	m, err := parseAnnotations([]string{"why=before the migration", "a=b=c", "empty="})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"why": "before the migration", "a": "b=c", "empty": ""}, m)
	for _, bad := range [][]string{{"x"}, {"=x"}, {"a=1", "a=2"}} {
		_, err := parseAnnotations(bad)
		require.ErrorIs(t, err, errUsage)
	}
}
