package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/repo"
)

// Service is the engine. Make one with New, and Serve once.
type Service struct {
	o   Options
	log *zap.Logger
	// work is the context of what runs; it ends when the service stops.
	work     context.Context
	stopWork context.CancelCauseFunc
	probed   chan struct{} // closed when the nodes were asked once
	looks    chan struct{} // asks for a look
	news     chan struct{} // asks for a snapshot
	probes   chan struct{} // asks for a look at the nodes

	snapshot atomic.Pointer[api.Snapshot]

	mu       sync.Mutex // guards what follows
	set      Settings
	repos    []*repository
	reloaded chan struct{} // closed and replaced when set was
	replaced chan struct{} // closed and replaced when there are other repositories
	changed  chan struct{} // closed and replaced with each snapshot
	state    cluster.State
	agents   map[string]agentState // by node
	live     map[string]*progress  // by run
	since    map[string]time.Time  // of problems
	refused  error                 // the configuration that was not taken
	heads    map[*repo.Repository]*heads
	probedAt time.Time
}

// ErrStopping is the cause of contexts when the service stops.
var ErrStopping = errors.New("the service is being stopped")

// New checks the options. Nothing is asked of anybody yet.
func New(o Options) (*Service, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if o.Cluster == "" || o.Holder == "" {
		return nil, errors.New("service: cluster and holder are required")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	s := &Service{
		o: o, log: o.Log, set: o.Settings, probed: make(chan struct{}), looks: make(chan struct{}, 1), news: make(chan struct{}, 1),
		probes: make(chan struct{}, 1), reloaded: make(chan struct{}), replaced: make(chan struct{}), changed: make(chan struct{}), agents: map[string]agentState{},
		live: map[string]*progress{}, since: map[string]time.Time{}, heads: map[*repo.Repository]*heads{},
	}
	s.work, s.stopWork = context.WithCancelCause(context.Background())
	for _, c := range o.Repos {
		r, err := s.newRepository(c)
		if err != nil {
			return nil, err
		}
		s.repos = append(s.repos, r)
	}
	s.snapshot.Store(s.build())
	return s, nil
}

func (s *Service) settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

func (s *Service) repositories() []*repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.repos)
}

func (s *Service) repository(name string) *repository {
	for _, r := range s.repositories() {
		if r.name == name {
			return r
		}
	}
	return nil
}

// Serve works until ctx ends. Then nothing is started any more, what runs here
// is ended in order, what runs at agents is left to the next leader, and the
// leases are given back.
func (s *Service) Serve(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { s.probe(ctx) })
	all.Go(func() { s.lookAgain(ctx) })
	all.Go(func() { s.publishAgain(ctx) })
	for _, r := range s.repositories() {
		s.serve(ctx, r)
	}
	// The leases outlive what runs under them.
	leading, stopLeading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLeading()
	if s.o.Election != nil {
		all.Go(func() { s.o.Election.Stand(leading) })
	}
	all.Go(func() { s.leadThroughReloads(leading) })
	<-ctx.Done()
	s.log.Info("stopping")
	for _, r := range s.repositories() {
		<-r.ended // nothing starts any more
	}
	s.stopWork(ErrStopping)
	for _, r := range s.repositories() {
		r.runner.Wait()
	}
	stopLeading()
	all.Wait()
	return context.Cause(ctx)
}

func (s *Service) serve(ctx context.Context, r *repository) {
	ctx, r.stop = context.WithCancel(ctx)
	go r.serve(ctx) // Serve waits for r.ended
}

// leadThroughReloads campaigns anew when there are other repositories.
func (s *Service) leadThroughReloads(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		replaced := s.replaced
		s.mu.Unlock()
		one, stop := context.WithCancel(ctx)
		go func() {
			select {
			case <-replaced:
			case <-one.Done():
			}
			stop()
		}()
		s.lead(one)
		stop()
	}
}

// kick sends without waiting.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// look asks for a look at the repositories soon, publish for a snapshot.
func (s *Service) look()    { kick(s.looks) }
func (s *Service) publish() { kick(s.news) }

// every calls fn now, then when asked to, and after each interval.
func every(ctx context.Context, asked <-chan struct{}, interval func() time.Duration, fn func()) {
	for {
		fn()
		t := time.NewTimer(interval())
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-asked:
			t.Stop()
		case <-t.C:
		}
	}
}

// publishEvery bounds how often a snapshot is made for the progress of a run.
const publishEvery = 500 * time.Millisecond

func (s *Service) publishAgain(ctx context.Context) {
	every(ctx, s.news, func() time.Duration { return s.settings().Interval }, func() {
		snap := s.build()
		s.mu.Lock()
		s.snapshot.Store(snap)
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		pause(ctx, publishEvery)
	})
}

// Snapshot is the newest state.
func (s *Service) Snapshot() *api.Snapshot { return s.snapshot.Load() }

// Changed is closed at the next change of the snapshot.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
