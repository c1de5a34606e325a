package service

import (
	"sync"
	"time"

	agentapi "github.com/walkeep/walkeep/agent/api"
)

// progress is how a run goes that is followed here.
type progress struct {
	s  *Service
	id string

	mu     sync.Mutex // guards what follows
	node   string
	stage  string
	total  int64
	copied int64
	first  time.Time // when the first bytes were seen
	base   int64     // bytes then
}

// progressOf begins to show a run; call done at its end.
func (s *Service) progressOf(id string) (p *progress, done func()) {
	p = &progress{s: s, id: id}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[id] = p
	return p, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, id)
	}
}

func (p *progress) change(fn func()) {
	p.mu.Lock()
	fn()
	p.mu.Unlock()
	p.s.publish()
}

// Stage, Total and Add make it a Progress of a backup that is taken here.
func (p *progress) Stage(what string) { p.change(func() { p.stage = what }) }
func (p *progress) Total(bytes int64) { p.change(func() { p.total = bytes }) }
func (p *progress) Add(bytes int64)   { p.change(func() { p.copiedNow(p.copied + bytes) }) }

func (p *progress) on(node string) { p.change(func() { p.node = node }) }

// of shows a run of an agent.
func (p *progress) of(r agentapi.Run) {
	p.change(func() {
		p.stage, p.total = r.Stage, r.Total
		p.copiedNow(r.Copied)
	})
}

func (p *progress) copiedNow(bytes int64) {
	if p.first.IsZero() && bytes > 0 {
		p.first, p.base = p.s.o.Clock(), bytes
	}
	p.copied = bytes
}

// rate is bytes a second, and how many seconds are left; -1: not known.
func (p *progress) rate(now time.Time) (rate, left int64) {
	took := now.Sub(p.first).Seconds()
	if p.first.IsZero() || took < 1 {
		return 0, -1
	}
	rate = int64(float64(p.copied-p.base) / took)
	if rate <= 0 || p.total < p.copied {
		return max(rate, 0), -1
	}
	return rate, (p.total - p.copied) / rate
}
