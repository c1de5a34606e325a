package repo

import (
	"io"
	"sync"
)

// pipeSize is how many bytes of a pack may wait for the store.
const pipeSize = 2 << 20

// pipe is a bounded buffer between the goroutine that compresses and the one
// that uploads, so that neither waits for the other at every chunk.
type pipe struct {
	mu       sync.Mutex
	changed  sync.Cond
	buf      []byte // ring
	start, n int
	writeErr error // set when no more will be written; io.EOF: all is
	readErr  error // set when no more will be read
}

func newPipe() *pipe {
	p := &pipe{buf: make([]byte, pipeSize)}
	p.changed.L = &p.mu
	return p
}

// Write copies b into the pipe and waits while there is no room.
func (p *pipe) Write(b []byte) (written int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		for p.n == len(p.buf) && p.readErr == nil {
			p.changed.Wait()
		}
		if p.readErr != nil {
			return written, p.readErr
		}
		end := (p.start + p.n) % len(p.buf)
		m := copy(p.buf[end:min(len(p.buf), end+len(p.buf)-p.n)], b)
		p.n += m
		b, written = b[m:], written+m
		p.changed.Broadcast()
	}
	return written, nil
}

// Read copies out of the pipe and waits while it is empty.
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.n == 0 && p.writeErr == nil {
		p.changed.Wait()
	}
	if p.writeErr != nil && (p.writeErr != io.EOF || p.n == 0) {
		return 0, p.writeErr
	}
	m := copy(b, p.buf[p.start:min(len(p.buf), p.start+p.n)])
	p.start = (p.start + m) % len(p.buf)
	p.n -= m
	p.changed.Broadcast()
	return m, nil
}

// closeWrite ends what Read yields, with io.EOF if all was written, else at
// once with err. Only the first call counts.
func (p *pipe) closeWrite(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeErr == nil {
		p.writeErr = err
		p.changed.Broadcast()
	}
}

// closeRead makes Write fail. Only the first call counts.
func (p *pipe) closeRead(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr == nil {
		p.readErr = err
		p.changed.Broadcast()
	}
}
