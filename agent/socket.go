package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/agent/wire"
	"github.com/walkeep/walkeep/archive"
)

// Bounds on clients.
const (
	// maxClients is how many are served at a time; the next one is told so, and
	// does the work itself.
	maxClients = 256
	// requestTime is how long a client may take to say what it wants, and
	// writeTime to take a line of the answer.
	requestTime = 5 * time.Second
	writeTime   = 5 * time.Second
)

// socketServer answers walkeep-wal.
type socketServer struct {
	agent    *Agent
	listener *net.UnixListener
	lock     *lock
	clients  chan struct{} // a token for each
	wg       sync.WaitGroup
}

// listen takes the lock of the socket and listens on it; nil if there is to be
// none. A socket that a killed agent left behind is removed: the lock, which
// the kernel took back, says that nobody is there.
func (a *Agent) listen() (*socketServer, error) {
	if a.opts.Socket == "" {
		return nil, nil
	}
	held, err := lockFile(a.opts.Socket + ".lock")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", a.opts.Socket, err)
	}
	l, err := bind(a.opts.Socket)
	if err != nil {
		held.release()
		return nil, err
	}
	return &socketServer{agent: a, listener: l, lock: held, clients: make(chan struct{}, maxClients)}, nil
}

// bind listens with mode 0600 from the first moment on: the socket is made under
// another name and renamed when its mode is right.
func bind(path string) (*net.UnixListener, error) {
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make the socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make the socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the socket: %w", err), l.Close(), os.Remove(temporary))
	}
	return l, nil
}

// close removes the socket, then its lock.
func (s *socketServer) close() {
	_ = os.Remove(s.agent.opts.Socket)
	_ = s.listener.Close()
	s.lock.release()
}

// serve answers clients until ctx ends, and returns when the last one is gone.
func (s *socketServer) serve(ctx context.Context) error {
	defer s.wg.Wait()
	defer context.AfterFunc(ctx, func() { _ = s.listener.Close() })()
	for {
		conn, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return ctx.Err()
		}
		if err != nil { // out of descriptors, say: clients help themselves meanwhile
			s.agent.opts.Log.Warn("cannot take a connection", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		select {
		case s.clients <- struct{}{}:
		default:
			answer(conn, wire.Answer{Kind: wire.Unavailable, Text: fmt.Sprintf("%d clients are being served", maxClients)})
			_ = conn.Close()
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.clients }()
			s.client(ctx, conn)
		}()
	}
}

// client serves one connection.
func (s *socketServer) client(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	uid, err := wire.PeerUID(conn)
	if err == nil && uid != os.Getuid() && uid != 0 {
		err = fmt.Errorf("this agent serves user %d, not %d", os.Getuid(), uid)
	}
	if err != nil {
		answer(conn, wire.Answer{Kind: wire.Unavailable, Text: err.Error()})
		return
	}
	request, err := readRequest(conn)
	if err != nil {
		s.agent.opts.Log.Debug("a client of the socket made no sense", zap.Error(err))
		answer(conn, wire.Answer{Kind: wire.Unavailable, Text: err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan wire.Answer, 1)
	go func() { done <- s.agent.answer(ctx, request) }()
	gone := make(chan struct{})
	go func() { // nothing more is expected of the client; that it is gone, is heard here
		defer close(gone)
		_ = conn.SetReadDeadline(time.Time{})
		var b [1]byte
		_, _ = conn.Read(b[:])
	}()
	tick := time.NewTicker(wire.WaitEvery)
	defer tick.Stop()
	for {
		select {
		case a := <-done:
			answer(conn, a)
			return
		case <-tick.C:
			if !send(conn, wire.Wait) {
				cancel()
				<-done
				return
			}
		case <-gone:
			cancel()
			<-done
			return
		}
	}
}

// readRequest reads one line of bounded length in bounded time.
func readRequest(conn *net.UnixConn) (wire.Request, error) {
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	line, err := bufio.NewReaderSize(io.LimitReader(conn, wire.MaxRequest), 512).ReadString('\n')
	if err == io.EOF && len(line) == wire.MaxRequest {
		return wire.Request{}, fmt.Errorf("%w: longer than %d bytes", wire.ErrRequest, wire.MaxRequest)
	}
	if err != nil {
		return wire.Request{}, fmt.Errorf("read a request: %w", err)
	}
	return wire.ParseRequest(line)
}

func send(conn *net.UnixConn, line string) bool {
	_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
	_, err := conn.Write([]byte(line))
	return err == nil
}

func answer(conn *net.UnixConn, a wire.Answer) { send(conn, a.Line()) }

// answer does what a request asks for.
func (a *Agent) answer(ctx context.Context, r wire.Request) wire.Answer {
	var err error
	switch r.Verb {
	case wire.Push:
		err = a.Push(ctx, r.Args[0])
	case wire.Get:
		err = a.get(ctx, r.Args[0], r.Args[1])
	case wire.Status:
		var b []byte
		if b, err = json.Marshal(a.Status()); err == nil {
			return wire.Answer{Kind: wire.OK, Text: string(b)}
		}
	}
	switch {
	case err == nil:
		return wire.Answer{Kind: wire.OK}
	case errors.Is(err, ErrElsewhere):
		return wire.Answer{Kind: wire.Elsewhere, Text: a.opts.PGData}
	case errors.Is(err, ErrNotReady), ctx.Err() != nil:
		return wire.Answer{Kind: wire.Unavailable, Text: err.Error()}
	case errors.Is(err, archive.ErrNotArchived):
		return wire.Answer{Kind: wire.Absent, Text: err.Error()}
	}
	return wire.Answer{Kind: wire.Failed, Text: err.Error()}
}

// errNoGetter: this agent brings nothing back.
var errNoGetter = fmt.Errorf("%w: it brings nothing back", ErrNotReady)

// get brings a file into this server's data directory.
func (a *Agent) get(ctx context.Context, name, dest string) error {
	if a.opts.Getter == nil {
		return errNoGetter
	}
	if err := a.ours(dest); err != nil {
		return err
	}
	return a.opts.Getter.Get(ctx, name, dest)
}
