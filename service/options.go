package service

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	agentapi "github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/retention"
	"github.com/walkeep/walkeep/scheduler"
	"github.com/walkeep/walkeep/verify"
)

// RunAnnotation is the annotation of a backup that names the run that took it.
const RunAnnotation = "walkeep.run"

// Repo is one repository of the service.
type Repo struct {
	// Work is the repository for what takes long, Watch the same one with less
	// patience, for looking and for leases.
	Work, Watch *repo.Repository
	// Location is where it is, without secrets.
	Location string
	Jobs     []scheduler.Job
	Policy   retention.Policy
	// Schedules by kind, as configured.
	Schedules map[string]string
	// Place tells whether Work and Watch of a new configuration lead to the same
	// place in the same way: then those that are open are kept.
	Place string
}

func (r Repo) name() string { return r.Watch.Name() }

// Settings can be replaced while the service runs. Repos is required.
type Settings struct {
	Repos   []Repo // 1 to 4, in the order of the configuration
	Members cluster.Members
	From    cluster.From
	Zone    *time.Location // of schedules; nil: UTC
	// Agent makes a client of the agent at a URL. nil: there are no agents.
	Agent func(url string) (*agentapi.Client, error)
	// Local takes backups of a node whose data directory is here, into a
	// repository. It is nil, or gives nil, where there is none.
	Local func(context.Context, cluster.NodeState, *repo.Repository) agentapi.Backup
	// OverSQL takes backups of a node that is read through the server, into a
	// repository, where no node has an agent that answers and no data directory
	// is here; with OnlySQL, always. nil: nothing is read over SQL.
	OverSQL func(cluster.NodeState, *repo.Repository) agentapi.Backup
	OnlySQL bool
	// LocalStatus is what the agent in this process says, with the name of its
	// node. It is nil, or says "", where there is none.
	LocalStatus func() (node string, status any)
	// Sources are where missing WAL may be had, besides the other repositories.
	Sources func(context.Context) []archive.Source
	// Drill rehearses a restore from a repository, and tells which stage it is at.
	// nil: there are no drills here.
	Drill func(ctx context.Context, work *repo.Repository, stage func(string)) error
	// VerifyLevel of verifications. "": stored.
	VerifyLevel verify.Level
	Interval    time.Duration // between looks at repositories; 0: 30 s
	Probe       time.Duration // between looks at nodes; 0: 5 s
	Lease       time.Duration // 0: 12 s
	TempDir     string        // for repair; "": the system's
}

// Options of New.
type Options struct {
	Settings
	Cluster string // required
	Version string // of walkeep
	Holder  string // who we are, for people; required
	// Election says who is to lead; nil: who gets hold of the leases.
	Election Election
	Cache    *repo.RunCache   // nil: everything is listed at each look
	Tracer   trace.Tracer     // of a span for each run; nil: none
	Clock    func() time.Time // nil: time.Now
	Log      *zap.Logger      // nil: none
}

func (s *Settings) setDefaults() error {
	if len(s.Repos) == 0 {
		return errors.New("service: no repository")
	}
	if s.Zone == nil {
		s.Zone = time.UTC
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&s.Interval, 30*time.Second)
	set(&s.Probe, 5*time.Second)
	set(&s.Lease, 12*time.Second)
	if s.VerifyLevel == "" {
		s.VerifyLevel = verify.Stored
	}
	if s.Agent == nil {
		s.Agent = func(string) (*agentapi.Client, error) { return nil, errors.New("agents are not used here") }
	}
	if s.Local == nil {
		s.Local = func(context.Context, cluster.NodeState, *repo.Repository) agentapi.Backup { return nil }
	}
	if s.LocalStatus == nil {
		s.LocalStatus = func() (string, any) { return "", nil }
	}
	if s.Drill == nil {
		s.Drill = func(context.Context, *repo.Repository, func(string)) error {
			return errors.New("restores are not rehearsed here")
		}
	}
	if s.Sources == nil {
		s.Sources = func(context.Context) []archive.Source { return nil }
	}
	return nil
}

// Election says which of several services is to lead. It gives no right to start
// anything: that lies in the repositories, which see who comes first in this way
// without waiting for the lease of a dead leader to go stale. Who holds the
// election may be away for as long as it likes; see the package comment.
type Election interface {
	// Stand stands for election until ctx ends, and then gives back what was won,
	// so that another need not wait.
	Stand(ctx context.Context)
	// Elected reports whether this service is elected, as far as is known. Changed
	// is closed when that changes.
	Elected() bool
	Changed() <-chan struct{}
	// Confirm asks whether this service is elected at this moment.
	Confirm(ctx context.Context) error
}
