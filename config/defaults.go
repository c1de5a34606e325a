package config

import (
	"cmp"
	"fmt"
	"time"

	"github.com/walkeep/walkeep/internal/cores"
)

const defaultRetryTotal = 5 * time.Minute

// setDefaults fills in what the file leaves open, so that users of a Config
// never decide about a missing value themselves.
func (c *Config) setDefaults() {
	setDefault(&c.TimeZone.location, time.Local)
	setDefault(&c.Archive.Workers, 4)
	setDefault(&c.Archive.Spool.Size, ByteSize(128<<20))
	if c.Archive.Stream {
		setDefault(&c.Archive.StreamInterval, Duration(5*time.Second))
	}
	setDefault(&c.Agent.Socket, "/run/walkeep/agent.sock")
	setDefault(&c.Agent.StandbyDelay, Duration(2*time.Second))
	setDefault(&c.Agent.Rescan, Duration(10*time.Second))
	setDefault(&c.Service.RateLimit, 200)
	setDefault(&c.Service.Streams, 500)
	setDefault(&c.Service.Interval, Duration(30*time.Second))
	setDefault(&c.Service.Probe, Duration(5*time.Second))
	setDefault(&c.Service.Lease, Duration(12*time.Second))
	setDefault(&c.Service.Attempts, 3)
	setDefault(&c.Service.Backoff, Duration(time.Minute))
	setDefault(&c.Service.VerifyLevel, VerifyStored)
	if k := c.Service.Kubernetes; k != nil && k.Reviews() {
		setDefault(&k.Audience, "walkeep")
	}
	workers := min(cores.Count(), 8)
	setDefault(&c.Backup.Workers, workers)
	setDefault(&c.Restore.Workers, workers)
	setDefault(&c.Postgres.BackupFrom, PreferStandby)
	setDefault(&c.Postgres.BackupSource, SourceAuto)
	for i := range c.Postgres.Nodes {
		setDefault(&c.Postgres.Nodes[i].Name, fmt.Sprintf("node%d", i+1))
	}
	for i := range c.Repos {
		c.Repos[i].setDefaults(c.Cluster)
	}
}

func (r *Repo) setDefaults(cluster string) {
	setDefault(&r.Prefix, cluster)
	setDefault(&r.Compression.Codec, "zstd")
	switch r.Compression.Codec {
	case "zstd":
		setDefault(&r.Compression.Level, 3)
	case "lz4":
		setDefault(&r.Compression.Level, 1)
	}
	if r.Retention.Full > 0 {
		setDefault(&r.Retention.FullType, RetainCount)
	}
	if r.Retention.WAL > 0 {
		setDefault(&r.Retention.WALType, WALOfFull)
	}
	setDefault(&r.Retry.Total, Duration(defaultRetryTotal))
	setDefault(&r.Retry.FirstDelay, min(Duration(300*time.Millisecond), cmp.Or(r.Retry.MaxDelay, r.Retry.Total)))
	setDefault(&r.Retry.MaxDelay, max(r.Retry.FirstDelay, min(Duration(20*time.Second), r.Retry.Total)))
	setDefault(&r.Retry.Stall, Duration(5*time.Minute))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
