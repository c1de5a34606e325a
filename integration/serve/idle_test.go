package serve

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
)

var idle = flag.Duration("idle", 5*time.Second, "how long TestIdle measures")

// TestIdle prints what a service costs that has nothing to do: see
// docs/performance.md. It asserts nothing about that but that memory stays far
// below what a leak would need.
func TestIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.Context(), 2, "")
	s, _ := serve(t, w.env, w.tokens, "rate-limit: 50", w.config(`, schedules: {full: "@daily"}`))
	s.until(t, "a lead", func(s *api.Snapshot) bool { return s.Leading && len(s.Nodes) == 2 && s.Nodes[1].Agent.Up })
	cpu := func() (ticks int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID()))
		require.NoError(t, err)
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
		var user, system int
		_, err = fmt.Sscan(f[11]+" "+f[12], &user, &system)
		require.NoError(t, err)
		return user + system
	}
	before, begun := cpu(), time.Now()
	time.Sleep(*idle) // nothing else happens: that is what is measured
	used, took := cpu()-before, time.Since(begun)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	require.NoError(t, err)
	kib := map[string]int{}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		if strings.HasPrefix(name, "Rss") || name == "VmRSS" {
			var n int
			_, err := fmt.Sscan(rest, &n)
			require.NoError(t, err)
			kib[name] = n
		}
	}
	t.Logf("idle for %s: %.2f %% of a core, %d MiB resident, of which %d are the program itself", took.Round(time.Second), float64(used)/took.Seconds(),
		kib["VmRSS"]/1024, kib["RssFile"]/1024)
	require.Less(t, kib["RssAnon"], 256<<10)
}
