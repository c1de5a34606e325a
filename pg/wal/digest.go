package wal

import (
	"crypto/sha256"
	"hash"
)

// buffers is how many chunks there are between reading and hashing.
const buffers = 3

// digester hashes chunks beside the walk through their records: on a second
// core the digest, which takes longer, costs nothing. Its channel free has the
// buffers to read into. Close it.
type digester struct {
	free   chan []byte
	parts  chan part
	done   chan struct{} // closed when all parts are hashed
	closed bool
	sum    hash.Hash // the goroutine's until done
	prefix [sha256.Size]byte
}

// part is what is hashed next.
type part struct {
	b      []byte
	prefix bool   // take the digest so far, behind b
	lent   []byte // the buffer to take back, if b was the last of it
}

// newDigester begins. queue is how many parts may wait.
func newDigester(queue int) *digester {
	d := &digester{
		free: make(chan []byte, buffers), parts: make(chan part, queue),
		done: make(chan struct{}), sum: sha256.New(),
	}
	go d.run()
	return d
}

func (d *digester) run() {
	defer close(d.done)
	for p := range d.parts {
		d.sum.Write(p.b)
		if p.prefix {
			d.sum.Sum(d.prefix[:0])
		}
		if p.lent != nil {
			d.free <- p.lent
		}
	}
}

// lend fills free.
func (d *digester) lend() {
	for range buffers {
		d.free <- make([]byte, chunk)
	}
}

// close waits for the goroutine. Nothing is hashed afterwards.
func (d *digester) close() {
	if !d.closed {
		d.closed = true
		close(d.parts)
	}
	<-d.done
}
