package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows people how a long job goes: each stage on a line, and the
// copying as a bar on a terminal, else as a line every few seconds. It is a
// backup.Progress.
type progress struct {
	out      io.Writer
	terminal bool
	clock    func() time.Time
	stop     chan struct{}
	ended    chan struct{}

	mu     sync.Mutex               // guards the rest
	bar    *progressbar.ProgressBar // while bytes come, on a terminal
	barred bool                     // there was a bar: no second one
	closed bool
	stage  string
	about  string // more to say of the moment
	total  int64
	done   int64
	since  time.Time // of the first byte
}

const (
	progressLine = 5 * time.Second
	progressBar  = 200 * time.Millisecond
)

func newProgress(out io.Writer, clock func() time.Time) *progress {
	p := &progress{out: out, terminal: isTerminal(out), clock: clock, stop: make(chan struct{}), ended: make(chan struct{})}
	go p.lines()
	return p
}

// lines writes a line now and then, until close.
func (p *progress) lines() {
	defer close(p.ended)
	t := time.NewTicker(progressLine)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			if !p.terminal && p.done > 0 && (p.total == 0 || p.done < p.total) {
				fmt.Fprintln(p.out, p.line())
			}
			p.mu.Unlock()
		}
	}
}

// line describes the state; with p.mu held.
func (p *progress) line() string {
	rate := 0.0
	if t := p.clock().Sub(p.since).Seconds(); t > 0 {
		rate = float64(p.done) / t
	}
	if p.total < p.done {
		return fmt.Sprintf("%s: %s, %s/s", p.stage, size(p.done), size(int64(rate)))
	}
	left := "?"
	if rate > 0 {
		left = time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second).String()
	}
	text := fmt.Sprintf("%s: %s of %s (%d %%), %s/s, %s left", p.stage, size(p.done), size(p.total),
		p.done*100/max(p.total, 1), size(int64(rate)), left)
	if p.about != "" {
		text += ", " + p.about
	}
	return text
}

// note says something that changes with the progress.
func (p *progress) note(about string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.about = about
	if p.bar != nil {
		p.bar.Describe(about)
	}
}

func (p *progress) Stage(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.stage = what
	p.endBar()
	fmt.Fprintln(p.out, what)
}

// startBar and endBar are called with p.mu held.
func (p *progress) startBar() {
	p.barred = true
	total := p.total
	if total == 0 {
		total = -1 // not known yet: a spinner
	}
	p.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(progressBar), progressbar.OptionSetPredictTime(true),
		progressbar.OptionFullWidth())
}

func (p *progress) endBar() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

func (p *progress) Total(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = bytes
	if p.bar != nil {
		p.bar.ChangeMax64(max(bytes, p.done+1))
	}
}

func (p *progress) Add(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = p.clock()
	}
	p.done += bytes
	if p.closed || !p.terminal {
		return
	}
	if p.bar == nil {
		if p.barred {
			return
		}
		p.startBar()
	}
	if p.total > 0 && p.done >= p.total { // files grow; a full bar would end itself
		p.total = p.done + 1
		p.bar.ChangeMax64(p.total)
	}
	_ = p.bar.Add64(bytes)
}

// close ends the display. It may be called twice.
func (p *progress) close() {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.endBar()
	p.mu.Unlock()
	if first {
		close(p.stop)
	}
	<-p.ended
}
