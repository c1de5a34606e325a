package walkeep

import (
	"bytes"
	"context"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is walkeep running in the background.
type Program struct {
	Name string
	Log  *Log          // what it says
	Done chan struct{} // closed when it has ended
	cmd  *exec.Cmd
}

// Start starts walkeep in the background. At the end of the test it is killed,
// and what it said is shown if the test failed.
func (s *Site) Start(t testing.TB, name string, args ...string) *Program {
	t.Helper()
	p := &Program{Name: name, Log: &Log{}, Done: make(chan struct{}), cmd: s.Command(context.Background(), args...)}
	p.cmd.Stdout, p.cmd.Stderr = p.Log, p.Log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.Done) }()
	t.Cleanup(func() {
		p.Kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.Log)
		}
	})
	return p
}

// PID is its process, which is the leader of a group.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to it and its children.
func (p *Program) Signal(s syscall.Signal) { _ = syscall.Kill(-p.PID(), s) }

// Kill ends it with a signal and waits.
func (p *Program) Kill(s syscall.Signal) {
	p.Signal(s)
	<-p.Done
}

// Ends waits for its end, which must have the exit status expected.
func (p *Program) Ends(t testing.TB, code int, patience time.Duration) {
	t.Helper()
	select {
	case <-p.Done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", p.Name)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s ended with %d, not %d", p.Name, got, code)
	}
}

// Log is text that is written and read at the same time.
type Log struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
