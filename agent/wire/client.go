package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// dialTimeout is how long a connection may take. The kernel makes it at once,
// unless the agent has stopped taking any.
const dialTimeout = time.Second

// Ask puts one request to the agent at the socket and waits for its answer. An
// error means that there is no agent, or that it gave no answer that counts;
// nothing is known then about what it did.
func Ask(ctx context.Context, socket string, r Request) (Answer, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return Answer{}, fmt.Errorf("connect to the agent: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := trusted(conn.(*net.UnixConn)); err != nil {
		return Answer{}, fmt.Errorf("agent at %s: %w", socket, err)
	}
	a, err := ask(conn, r)
	if c := context.Cause(ctx); c != nil && err != nil {
		err = c
	}
	if err != nil {
		return Answer{}, fmt.Errorf("ask the agent at %s: %w", socket, err)
	}
	return a, nil
}

func ask(conn net.Conn, r Request) (Answer, error) {
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return Answer{}, err
	}
	// An agent that has no room answers before it has read anything: what it
	// said counts more than that it did not listen.
	_, writeErr := conn.Write([]byte(r.Line()))
	in := bufio.NewReader(&bounded{conn, MaxAnswer})
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return Answer{}, errors.Join(err, writeErr)
		case line != Wait:
			return ParseAnswer(line)
		}
		if err := conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
			return Answer{}, err
		}
	}
}

// bounded fails after so many bytes.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("its answer is too long")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// trusted refuses to talk to another user's process: whoever can make a socket
// at the agent's place could otherwise say of every segment that it is archived.
// Root, as whom no server runs, may look at anybody's agent.
func trusted(conn *net.UnixConn) error {
	uid, err := PeerUID(conn)
	if err != nil {
		return err
	}
	if self := os.Getuid(); uid != self && uid != 0 && self != 0 {
		return fmt.Errorf("it runs as user %d, and this is user %d", uid, self)
	}
	return nil
}
