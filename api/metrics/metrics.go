// Package metrics shows the state of the service to Prometheus.
//
// Every metric is computed from the newest [api.Snapshot] when it is asked for,
// so that nothing is counted twice, nothing is kept, and a scrape never waits
// for a repository or a server. Ages are computed at that moment too: an alert
// on the age of a backup works without a clock of its own. A series that has no
// value (a repository without a backup of some type) is left out, not zero.
//
// All metrics carry the label cluster. Where several services watch one
// cluster, each shows its own view; the alert rules in deploy/alerts.yaml
// aggregate them.
package metrics

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// Collector reads the snapshot of a service. Make one with NewCollector.
type Collector struct {
	service api.Service
	now     func() time.Time
	descs   map[string]*prometheus.Desc
	kinds   map[string]prometheus.ValueType
}

// NewCollector makes a collector. A nil clock is time.Now.
func NewCollector(s api.Service, now func() time.Time) *Collector {
	if now == nil {
		now = time.Now
	}
	c := &Collector{service: s, now: now, descs: map[string]*prometheus.Desc{}, kinds: map[string]prometheus.ValueType{}}
	for _, d := range definitions {
		c.descs[d.name] = prometheus.NewDesc("walkeep_"+d.name, d.help, append([]string{"cluster"}, d.labels...), nil)
		c.kinds[d.name] = prometheus.GaugeValue
		if d.counter {
			c.kinds[d.name] = prometheus.CounterValue
		}
	}
	return c
}

// Handler serves the collector and what Go knows of the process.
func Handler(s api.Service, now func() time.Time) (http.Handler, error) {
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		NewCollector(s, now), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{}), nil
}

// Describe is for prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect is for prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	s := c.service.Snapshot()
	if s == nil {
		return
	}
	g := &gathering{collector: c, out: out, cluster: s.Cluster, now: c.now(), seen: map[string]bool{}}
	g.add("info", 1, s.Version)
	g.add("leader", truth(s.Leading))
	g.add("level", levelNumber(s.Level))
	g.time("snapshot_timestamp_seconds", s.At)
	for _, p := range s.Problems {
		g.add("problem", 1, p.Code, string(p.Level), p.Repo, p.Node)
	}
	for _, n := range s.Nodes {
		g.node(n)
	}
	for i := range s.Repos {
		g.repository(&s.Repos[i])
	}
	g.runs(s.Runs)
	for _, n := range s.Next { // the soonest first, which is the one that counts
		g.time("next_run_timestamp_seconds", n.At, n.Repo, n.Kind)
	}
}

// gathering is one answer to a scrape.
type gathering struct {
	collector *Collector
	out       chan<- prometheus.Metric
	cluster   string
	now       time.Time
	seen      map[string]bool
}

// add sends a value. The first one of a series counts: two of one would spoil
// the whole scrape, and a snapshot comes from many sources.
func (g *gathering) add(name string, v float64, labels ...string) {
	key := fmt.Sprintf("%s %q", name, labels)
	if g.seen[key] {
		return
	}
	g.seen[key] = true
	g.out <- prometheus.MustNewConstMetric(g.collector.descs[name], g.collector.kinds[name], v, append([]string{g.cluster}, valid(labels)...)...)
}

// time sends a moment, if there is one.
func (g *gathering) time(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		g.add(name, float64(t.UnixMilli())/1000, labels...)
	}
}

// age sends how long ago a moment was, if there is one.
func (g *gathering) age(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		g.add(name, max(g.now.Sub(t).Seconds(), 0), labels...)
	}
}

func (g *gathering) node(n api.Node) {
	g.add("node_up", truth(n.Up), n.Name, n.Role)
	if n.Timeline > 0 {
		g.add("node_timeline", float64(n.Timeline), n.Name)
	}
	if n.Up && n.Lag >= 0 {
		g.add("node_lag_bytes", float64(n.Lag), n.Name)
	}
	if n.Agent == nil {
		return
	}
	g.add("agent_up", truth(n.Agent.Up), n.Name)
	for _, q := range n.Agent.Queues {
		g.add("agent_queue_files", float64(q.Waiting), n.Name, q.Repo)
		g.add("agent_queue_bytes", float64(q.WaitingBytes), n.Name, q.Repo)
		oldest := 0.0
		if !q.Oldest.IsZero() {
			oldest = max(g.now.Sub(q.Oldest).Seconds(), 0)
		}
		g.add("agent_queue_oldest_seconds", oldest, n.Name, q.Repo)
		g.add("agent_error", truth(q.Error != ""), n.Name, q.Repo)
		g.add("agent_pushed_total", float64(q.Pushed), n.Name, q.Repo)
		g.add("agent_deduplicated_total", float64(q.Deduplicated), n.Name, q.Repo)
		g.add("agent_repaired_total", float64(q.Repaired), n.Name, q.Repo)
		g.add("agent_conflicting_total", float64(q.Conflicting), n.Name, q.Repo)
		g.add("agent_dropped_total", float64(q.Dropped), n.Name, q.Repo)
	}
}

func (g *gathering) repository(r *api.Repository) {
	g.add("repository_up", truth(r.Error == ""), r.Name)
	g.add("repository_level", levelNumber(r.Level), r.Name)
	g.add("repository_paused", truth(r.Paused), r.Name)
	g.time("repository_looked_at_timestamp_seconds", r.LookedAt, r.Name)
	g.add("repository_stored_bytes", float64(r.StoredBytes), r.Name)
	g.backups(r)

	behind := 0.0
	if r.Behind > 0 && !r.BehindSince.IsZero() {
		behind = max(g.now.Sub(r.BehindSince).Seconds(), 0)
	}
	g.add("wal_behind_segments", float64(r.Behind), r.Name)
	g.add("wal_behind_seconds", behind, r.Name)
	segments, missing := 0, 0
	for i := range r.Timelines {
		segments += r.Timelines[i].Segments
	}
	for i := range r.Gaps {
		missing += r.Gaps[i].Segments
	}
	g.add("wal_segments", float64(segments), r.Name)
	g.add("wal_gaps", float64(len(r.Gaps)), r.Name)
	g.add("wal_gap_segments", float64(missing), r.Name)
	g.add("wal_conflicts", float64(len(r.Conflicts)), r.Name)

	var earliest, latest time.Time
	for _, w := range r.Windows {
		if w.Latest.After(latest) {
			earliest, latest = w.Earliest, w.Latest
		}
	}
	g.time("recovery_window_earliest_timestamp_seconds", earliest, r.Name)
	g.time("recovery_window_latest_timestamp_seconds", latest, r.Name)
	g.time("verify_last_timestamp_seconds", r.Verified, r.Name)
	g.age("verify_since_last_completion_seconds", r.Verified, r.Name)
	g.drills(r)
	g.time("expire_last_timestamp_seconds", r.Expired, r.Name)
	g.age("expire_since_last_completion_seconds", r.Expired, r.Name)
}

func (g *gathering) drills(r *api.Repository) {
	if r.Drill != nil {
		g.add("drill_last_success", truth(r.Drill.Passed), r.Name)
		g.time("drill_last_timestamp_seconds", r.Drill.Ended, r.Name)
	}
	if d := r.DrillPassed; d != nil {
		g.time("drill_last_successful_timestamp_seconds", d.Ended, r.Name)
		g.age("drill_since_last_success_seconds", d.Ended, r.Name)
		g.add("drill_last_duration_seconds", d.RestoreSeconds, r.Name, "restore")
		g.add("drill_last_duration_seconds", d.RecoverySeconds, r.Name, "recovery")
		g.add("drill_last_duration_seconds", d.CheckSeconds, r.Name, "checks")
	}
}

// backups shows the newest backup of each type, and how many there are. A full
// backup counts as differential, and these two as incremental, where the age is
// asked for: an hourly incremental that the weekly full replaces is not late.
func (g *gathering) backups(r *api.Repository) {
	types := []repo.BackupType{repo.Full, repo.Differential, repo.Incremental}
	count := map[repo.BackupType]int{}
	newest := map[repo.BackupType]*api.Backup{}
	for i := range r.Backups { // the newest first
		b := &r.Backups[i]
		if count[b.Type]++; newest[b.Type] == nil {
			newest[b.Type] = b
		}
	}
	var last time.Time
	for _, t := range types {
		kind := string(t)
		g.add("backups", float64(count[t]), r.Name, kind)
		b := newest[t]
		if b == nil {
			continue
		}
		if b.Stop.After(last) {
			last = b.Stop
		}
		g.age("backup_since_last_completion_seconds", last, r.Name, kind)
		g.time("backup_last_timestamp_seconds", b.Stop, r.Name, kind)
		g.add("backup_last_duration_seconds", max(b.Stop.Sub(b.Start).Seconds(), 0), r.Name, kind)
		g.add("backup_last_bytes", float64(b.Bytes), r.Name, kind)
		g.add("backup_last_stored_bytes", float64(b.StoredBytes), r.Name, kind)
		g.add("backup_last_page_errors", float64(b.PageErrors), r.Name, kind)
	}
}

// runs shows the last run of each kind that ended, and those under way.
func (g *gathering) runs(runs []api.Run) {
	type key struct{ repo, kind, state string }
	count := map[key]int{}
	for _, r := range runs { // the newest first
		if !r.Final() {
			count[key{r.Repo, r.Kind, string(r.State)}]++
			if r.State == api.Running {
				g.add("run_copied_bytes", float64(r.CopiedBytes), r.Repo, r.Kind)
				g.add("run_total_bytes", float64(r.TotalBytes), r.Repo, r.Kind)
			}
			continue
		}
		if r.State == api.Failed || r.State == api.Lost {
			g.time("run_last_failed_timestamp_seconds", r.Ended, r.Repo, r.Kind)
		}
		if r.State != api.Cancelled {
			g.add("run_last_success", truth(r.State == api.Done), r.Repo, r.Kind)
		}
		if r.State == api.Done && !r.Started.IsZero() {
			g.add("run_last_duration_seconds", max(r.Ended.Sub(r.Started).Seconds(), 0), r.Repo, r.Kind)
		}
	}
	for k, n := range count {
		g.add("runs", float64(n), k.repo, k.kind, k.state)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// levelNumber is 0 for ok, 1 for warning, 2 for critical.
func levelNumber(l api.Level) float64 {
	switch l {
	case api.OK:
		return 0
	case api.Critical:
		return 2
	}
	return 1
}
