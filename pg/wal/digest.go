package wal

import (
	"encoding/hex"

	"github.com/zeebo/xxh3"
)

// Digest tells files of pg_wal apart: the XXH3-128 of their bytes, written as the
// xxHash specification wants it ("canonical representation"), which is what
// xxh128sum prints.
//
// Among 2^32 files two have the same by accident with a probability of 2^-65. It
// does not resist people who make two such files on purpose. A cryptographic digest
// would, and takes more than ten times as long, on processors without instructions
// for it more than fifty times: of every segment, on every node. What it would keep people from is
// to make a segment of two servers with one system identifier look the same, for
// which they must choose all that both write at that place.
type Digest [16]byte

// String is the digest as 32 lower-case hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// DigestOf is the digest of b.
func DigestOf(b []byte) Digest { return xxh3.Hash128(b).Bytes() }

// Digester makes the digest of what is written to it. The zero value is ready.
type Digester struct{ sum xxh3.Hasher }

// Write takes more bytes. It never fails.
func (d *Digester) Write(b []byte) (int, error) { return d.sum.Write(b) }

// Digest is that of all that was written so far.
func (d *Digester) Digest() Digest { return d.sum.Sum128().Bytes() }

const (
	// buffers is how many chunks there are between reading and hashing.
	buffers = 3
	// waiting is how many parts may lie between the walk and the digest. Memory
	// is bounded by whose the parts are.
	waiting = 128
)

// digester hashes chunks beside the walk through their records, on another core.
// Close it.
type digester struct {
	parts  chan part
	ended  chan struct{} // closed when all parts are hashed
	closed bool
	sum    Digester // the goroutine's until ended
	prefix Digest
}

// part is what is hashed next.
type part struct {
	b      []byte
	prefix bool   // take the digest so far, behind b
	done   func() // called when b is hashed, if not nil
}

func newDigester() *digester {
	d := &digester{parts: make(chan part, waiting), ended: make(chan struct{})}
	go d.run()
	return d
}

func (d *digester) run() {
	defer close(d.ended)
	for p := range d.parts {
		_, _ = d.sum.Write(p.b)
		if p.prefix {
			d.prefix = d.sum.Digest()
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
