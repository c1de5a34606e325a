package agent

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/agent/wire"
	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wk") // t.TempDir is often too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

func ask(t *testing.T, socket, verb string, args ...string) wire.Answer {
	t.Helper()
	a, err := wire.Ask(context.Background(), socket, wire.Request{Verb: verb, Args: args})
	require.NoError(t, err)
	return a
}

// say sends raw bytes and returns all that comes back.
func say(t *testing.T, socket string, b []byte) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, _ = conn.Write(b) // the agent may have had enough already
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func TestSocket(t *testing.T) {
	socket := socketPath(t)
	n := newNode(t, pg.StateProduction)
	names := n.segments(t, 0, 1, ".ready")
	require.NoError(t, os.WriteFile(socket, nil, 0o600)) // what a killed agent leaves behind
	a := start(t, n, Options{Socket: socket}, memory.New())
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	path := filepath.Join(n.dir, "pg_wal", string(names[0]))
	require.Equal(t, wire.Answer{Kind: wire.OK}, ask(t, socket, wire.Push, path))
	require.Equal(t, wire.Answer{Kind: wire.Elsewhere, Text: n.dir}, ask(t, socket, wire.Push, "/elsewhere/pg_wal/"+string(names[0])))
	require.Equal(t, wire.Elsewhere, ask(t, socket, wire.Push, string(names[0])).Kind)
	require.Equal(t, wire.Failed, ask(t, socket, wire.Push, filepath.Join(n.dir, "pg_wal", "passwd")).Kind)
	require.Equal(t, wire.Unavailable, ask(t, socket, wire.Get, "00000002.history", filepath.Join(n.dir, "pg_wal", "x")).Kind)
	require.Contains(t, ask(t, socket, wire.Status).Text, `"repo1"`)

	for _, garbage := range []string{"\n", "GET / HTTP/1.1\r\n\r\n", "walkeep/9 push \"x\"\n", strings.Repeat("x", 1<<20), "walkeep/1 push " + strings.Repeat("\xff", 20000) + "\n"} {
		require.True(t, strings.HasPrefix(say(t, socket, []byte(garbage)), "unavailable "), "%.40q", garbage)
	}

	// Another agent is told, and takes nothing away.
	second, err := New(Options{PGData: t.TempDir(), Repos: repositories(t, memory.New()), Socket: socket})
	require.NoError(t, err)
	require.ErrorIs(t, second.Run(context.Background()), ErrRunning)
	require.Equal(t, wire.OK, ask(t, socket, wire.Push, path).Kind)

	require.NoError(t, a.stop())
	require.NoFileExists(t, socket)
}

// TestManyClients: 200 clients at once, slow and silent ones among them, are all
// answered; with too many the next is told so at once.
func TestManyClients(t *testing.T) {
	socket := socketPath(t)
	n := newNode(t, pg.StateProduction)
	name := string(n.segments(t, 0, 1, ".ready")[0])
	start(t, n, Options{Socket: socket}, faulty.New(memory.New(), faulty.Rule{Fault: faulty.Delay, Delay: 100 * time.Millisecond}))
	var wg sync.WaitGroup
	for range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			a, err := wire.Ask(context.Background(), socket, wire.Request{Verb: wire.Push, Args: []string{filepath.Join(n.dir, "pg_wal", name)}})
			if err != nil || a.Kind != wire.OK {
				t.Errorf("%v %v", a, err)
			}
		}()
	}
	wg.Wait()

	var silent []net.Conn
	defer func() {
		for _, c := range silent {
			c.Close()
		}
	}()
	for range maxClients {
		c, err := net.Dial("unix", socket)
		require.NoError(t, err)
		silent = append(silent, c)
		_, _ = c.Write([]byte("walkeep/1 pu"))
	}
	require.Contains(t, say(t, socket, nil), "unavailable")
	// The silent ones lose their places in time.
	require.Eventually(t, func() bool {
		a, err := wire.Ask(context.Background(), socket, wire.Request{Verb: wire.Status})
		return err == nil && a.Kind == wire.OK
	}, time.Minute, 50*time.Millisecond)
}

// TestStops: an agent that is stopped tells those who wait to help themselves.
func TestStops(t *testing.T) {
	socket := socketPath(t)
	n := newNode(t, pg.StateProduction)
	name := n.segments(t, 0, 1, ".ready")[0]
	a := start(t, n, Options{Socket: socket}, faulty.New(memory.New(), hang))
	answers := make(chan wire.Answer, 1)
	go func() {
		got, err := wire.Ask(context.Background(), socket, wire.Request{Verb: wire.Push, Args: []string{filepath.Join(n.dir, "pg_wal", string(name))}})
		if err != nil {
			got.Text = err.Error()
		}
		answers <- got
	}()
	require.Eventually(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.files[string(name)] != nil && a.files[string(name)].asked
	}, time.Minute, time.Millisecond)
	require.NoError(t, a.stop())
	require.NotEqual(t, wire.OK, (<-answers).Kind)
}

type fixedGetter map[string]string

func (g fixedGetter) Get(_ context.Context, name, dest string) error {
	content, ok := g[name]
	if !ok {
		return archive.ErrNotArchived
	}
	return os.WriteFile(dest, []byte(content), 0o600)
}

func TestGet(t *testing.T) {
	socket := socketPath(t)
	n := newNode(t, pg.StateArchiveRecovery)
	start(t, n, Options{Socket: socket, Getter: fixedGetter{"00000002.history": "x"}}, memory.New())
	dest := filepath.Join(n.dir, "pg_wal", "RECOVERYHISTORY")
	require.Equal(t, wire.OK, ask(t, socket, wire.Get, "00000002.history", dest).Kind)
	require.FileExists(t, dest)
	require.Equal(t, wire.Absent, ask(t, socket, wire.Get, "00000003.history", dest).Kind)
	require.Equal(t, wire.Elsewhere, ask(t, socket, wire.Get, "00000002.history", filepath.Join(t.TempDir(), "x")).Kind)
}

// FuzzSocket sends anything to the socket; the agent answers or hangs up, and
// goes on.
func FuzzSocket(f *testing.F) {
	f.Add([]byte("walkeep/1 status\n"))
	f.Add([]byte("walkeep/1 push \"/x/pg_wal/000000010000000000000001\"\n"))
	f.Add([]byte("walkeep/1 get \"00000002.history\" \"/etc/passwd\"\nmore"))
	f.Add(bytes.Repeat([]byte{0}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !bytes.Contains(b, []byte("\n")) {
			b = append(b, '\n') // else it waits for more, which takes long
		}
		server, client := pair(t)
		s := &socketServer{agent: quietAgent(t)}
		done := make(chan struct{})
		go func() { s.client(context.Background(), server); close(done) }()
		_, _ = client.Write(b)
		answer, _ := io.ReadAll(client)
		<-done
		_, err := wire.ParseAnswer(strings.TrimPrefix(string(answer), wire.Wait))
		require.NoError(t, err, "%q", answer)
	})
}

// quietAgent is one that does not run.
func quietAgent(t *testing.T) *Agent {
	a, err := New(Options{PGData: t.TempDir(), Repos: repositories(t, memory.New())})
	require.NoError(t, err)
	return a
}

func pair(t *testing.T) (server, client *net.UnixConn) {
	socket := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("unix", socket)
	require.NoError(t, err)
	server, err = l.AcceptUnix()
	require.NoError(t, err)
	client = c.(*net.UnixConn)
	t.Cleanup(func() { client.Close() })
	require.NoError(t, client.SetDeadline(time.Now().Add(time.Minute)))
	return server, client
}
