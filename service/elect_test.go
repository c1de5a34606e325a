package service

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
)

// ballot is an election in memory, whose outcome the test decides.
type ballot struct {
	mu      sync.Mutex // guards what follows
	winner  string
	away    bool // nobody can be asked
	changed chan struct{}
}

func newBallot() *ballot { return &ballot{changed: make(chan struct{})} }

func (b *ballot) decide(winner string, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.winner, b.away = winner, away
	close(b.changed)
	b.changed = make(chan struct{})
}

// voter is a service's sight of it. One that sleeps believes what it believed.
type voter struct {
	*ballot
	name   string
	asleep bool
}

func (v *voter) Stand(ctx context.Context) { <-ctx.Done() }

func (v *voter) Elected() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asleep || !v.away && v.winner == v.name
}

func (v *voter) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

func (v *voter) Confirm(context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away || v.winner != v.name {
		return errors.New("not elected")
	}
	return nil
}

func stands(t *testing.T, v *voter, stores ...object.Store) (*Service, []*eye) {
	return beginWith(t, v.name, func(o *Options) { o.Election = v }, stores...)
}

// The elected one leads, and deposes who leads. The right to start runs stays in
// the repositories.
func TestElection(t *testing.T) {
	t.Parallel()
	one, two := memory.New(), memory.New()
	b := newBallot()
	b.decide("a", false)
	a, _ := stands(t, &voter{ballot: b, name: "a"}, one, two)
	eventually(t, "a leads", func() bool { return leadsOf(a) == "repo1 repo2 " })
	c, eyesC := stands(t, &voter{ballot: b, name: "c"}, one, two)
	until(t, c, "c follows", func(s *api.Snapshot) bool { return s.Leader == "a" && !s.Leading })
	expires(t, a, "repo1")

	// The election is away: a goes on, well beyond the time of a lease.
	b.decide("", true)
	for range 3 {
		expires(t, a, "repo2")
	}
	require.Empty(t, leadsOf(c))

	// c is elected: a is deposed, and starts nothing more.
	b.decide("c", false)
	eventually(t, "c leads", func() bool { return leadsOf(c) == "repo1 repo2 " })
	_, err := a.Expire(t.Context(), api.ExpireRequest{Repo: "repo1"})
	require.ErrorIs(t, err, api.ErrNotLeader)
	expires(t, c, "repo1")
	until(t, a, "a follows", func(s *api.Snapshot) bool { return s.Leader == "c" && !s.Leading && leadsOf(a) == "" })

	// c does not see the repositories: a leads after a while, unelected, and is
	// deposed when c sees them again.
	for _, e := range eyesC {
		e.away(true)
	}
	eventually(t, "a leads", func() bool { return leadsOf(a) == "repo1 repo2 " })
	expires(t, a, "repo1")
	for _, e := range eyesC {
		e.away(false)
	}
	eventually(t, "c leads again", func() bool { return leadsOf(c) == "repo1 repo2 " && leadsOf(a) == "" })
	expires(t, c, "repo2")
}

// Nobody is elected, because nobody can be asked: somebody leads all the same.
func TestElectionAway(t *testing.T) {
	t.Parallel()
	store := memory.New()
	b := newBallot()
	b.decide("", true)
	a, _ := stands(t, &voter{ballot: b, name: "a"}, store)
	eventually(t, "a leads", func() bool { return leadsOf(a) == "repo1 " })
	expires(t, a, "repo1")

	// One that was elected once and slept deposes nobody when it wakes up.
	b.decide("a", false)
	c, _ := stands(t, &voter{ballot: b, name: "c", asleep: true}, store)
	until(t, c, "c follows", func(s *api.Snapshot) bool { return s.Leader == "a" && !s.Leading })
	for range 3 {
		expires(t, a, "repo1")
	}
	require.Empty(t, leadsOf(c))
}
