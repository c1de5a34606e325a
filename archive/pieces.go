package archive

import (
	"sync/atomic"

	"github.com/walkeep/walkeep/internal/cores"
	"github.com/walkeep/walkeep/repo"
)

// pieces is the memory that segments are read into, a piece at a time. There is
// as much of it as keeps all cores busy, however many segments are in transfer:
// who reads waits for a piece that has been worked off. Working one off needs no
// other piece, so that this ends.
type pieces struct {
	turn chan struct{} // a token for each segment that is being read
	free chan *piece
}

// piece is one of them.
type piece struct {
	of    *pieces
	b     []byte       // of repo.WALFrame bytes; nil until it is first needed
	users atomic.Int32 // who has not given it back
}

// newPieces is for two segments at a time at least, so that the second one has
// the cores while the first is at its end.
func newPieces() *pieces {
	n := cores.Count()
	s := &pieces{turn: make(chan struct{}, max(2, n/2)), free: make(chan *piece, 2*n+2)}
	for range cap(s.free) {
		s.free <- &piece{of: s}
	}
	return s
}

// enter waits for the turn to read a segment; leave when it is read.
func (s *pieces) enter() { s.turn <- struct{}{} }
func (s *pieces) leave() { <-s.turn }

// take waits for a piece, which has one user then.
func (s *pieces) take() *piece {
	p := <-s.free
	if p.b == nil {
		p.b = make([]byte, repo.WALFrame)
	}
	p.users.Store(1)
	return p
}

// giveBack ends one use.
func (p *piece) giveBack() {
	if p.users.Add(-1) == 0 {
		p.of.free <- p
	}
}
