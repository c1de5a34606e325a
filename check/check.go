package check

import (
	"context"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo"
)

// Node is one server to check.
type Node struct {
	Name     string
	ConnInfo string
	// PGData is the data directory as configured; "" asks the server. It is
	// looked at only where it exists on this machine.
	PGData string
	// Agent is the URL of the agent beside the server, "" if there is none.
	Agent string
}

// Options of Run.
type Options struct {
	Cluster string
	Nodes   []Node
	Repos   []*repo.Repository
	// OverSQL says when backups are read over SQL.
	OverSQL OverSQL
	// NoSwitch leaves out the forced WAL switch and the wait for its arrival.
	NoSwitch bool
	// ArchiveTimeout is how long the switched segment may take to arrive in
	// each repository. Default 60 s.
	ArchiveTimeout time.Duration
	Clock          func() time.Time // default time.Now
	Log            *zap.Logger      // nil: none

	largeSize int // of the probe that is uploaded in parts; tests make it small
}

const (
	defaultArchiveTimeout = time.Minute
	connectTimeout        = 15 * time.Second
)

func (o *Options) setDefaults() {
	if o.largeSize == 0 {
		o.largeSize = defaultLargeSize
	}
	if o.ArchiveTimeout <= 0 {
		o.ArchiveTimeout = defaultArchiveTimeout
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
}

// Run checks everything. It returns when all is done or ctx has ended; what
// could not be done then is in the report as failed. It connects to the nodes
// and, on the primary, ends a WAL segment; in the repositories it leaves
// nothing behind but what the archiver puts there.
func Run(ctx context.Context, o Options) Report {
	o.setDefaults()
	nodes := make([]*node, len(o.Nodes))
	repos := make([]*repository, len(o.Repos))
	var g errgroup.Group
	for i, n := range o.Nodes {
		g.Go(func() error {
			nodes[i] = o.checkNode(ctx, n)
			return nil
		})
	}
	for i, r := range o.Repos {
		g.Go(func() error {
			repos[i] = o.checkRepository(ctx, r)
			return nil
		})
	}
	_ = g.Wait() // what fails is in the sections
	defer func() {
		for _, n := range nodes {
			n.close(ctx)
		}
	}()

	r := Report{Cluster: o.Cluster}
	cluster := o.checkCluster(nodes)
	for _, n := range nodes {
		n.checkSettings(len(nodes))
	}
	o.checkReading(ctx, nodes)
	for _, p := range repos {
		p.checkEpoch(ctx, nodes)
	}
	archiving := o.checkArchiving(ctx, nodes, repos)
	for _, n := range nodes {
		r.Sections = append(r.Sections, n.Section)
	}
	r.Sections = append(r.Sections, cluster)
	for _, p := range repos {
		r.Sections = append(r.Sections, p.Section)
	}
	r.Sections = append(r.Sections, archiving)
	r.finish()
	return r
}
