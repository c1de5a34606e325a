package wal

import (
	"crypto/sha256"
	"hash"
)

const (
	// buffers is how many chunks there are between reading and hashing.
	buffers = 3
	// waiting is how many parts may lie between the walk and the digest. Memory
	// is bounded by whose the parts are.
	waiting = 128
)

// digester hashes chunks beside the walk through their records: on a second
// core the digest, which takes longer, costs nothing. Close it.
type digester struct {
	parts  chan part
	ended  chan struct{} // closed when all parts are hashed
	closed bool
	sum    hash.Hash // the goroutine's until ended
	prefix [sha256.Size]byte
}

// part is what is hashed next.
type part struct {
	b      []byte
	prefix bool   // take the digest so far, behind b
	done   func() // called when b is hashed, if not nil
}

func newDigester() *digester {
	d := &digester{parts: make(chan part, waiting), ended: make(chan struct{}), sum: sha256.New()}
	go d.run()
	return d
}

func (d *digester) run() {
	defer close(d.ended)
	for p := range d.parts {
		d.sum.Write(p.b)
		if p.prefix {
			d.sum.Sum(d.prefix[:0])
		}
		if p.done != nil {
			p.done()
		}
	}
}

// close waits for the goroutine. Nothing is hashed afterwards.
func (d *digester) close() {
	if !d.closed {
		d.closed = true
		close(d.parts)
	}
	<-d.ended
}
