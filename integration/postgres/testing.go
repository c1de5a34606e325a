package postgres

import (
	"context"
	"time"
)

// TB is the part of testing.TB that is used here, so that programs which use
// the rest of this package do not link the testing package.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// New makes an environment that lives as long as the test. If the test fails,
// the ends of its servers' logs are shown.
func New(t TB) *Env {
	t.Helper()
	e, err := NewEnv()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", e.Logs(60))
		}
		if err := e.Close(); err != nil {
			t.Logf("clean up: %v", err)
		}
	})
	return e
}

// Primary makes a cluster and starts it.
func (e *Env) Primary(t TB, o Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s, err := e.InitDB(ctx, o)
	if err == nil {
		err = s.Start(ctx)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// StartStandby makes a streaming standby, starts it, and waits until it has
// replayed what the primary has written so far.
func (e *Env) StartStandby(t TB, primary *Server, o Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s, err := e.Standby(ctx, primary, o)
	if err == nil {
		err = s.Start(ctx)
	}
	if err == nil && !o.NotFromPrimary {
		lsn, lsnErr := primary.LSN(ctx)
		if err = lsnErr; err == nil {
			err = s.WaitReplay(ctx, lsn)
		}
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// TempDir is Mkdir for tests: a directory that the servers' user owns.
func (e *Env) TempDir(t TB, name string) string {
	t.Helper()
	dir, err := e.Mkdir(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

// MustExec runs statements, or fails the test.
func (s *Server) MustExec(t TB, sql string, args ...any) {
	t.Helper()
	if err := s.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%v", err)
	}
}

// MustText runs a query that yields one value, or fails the test.
func (s *Server) MustText(t TB, sql string) string {
	t.Helper()
	text, err := s.Text(context.Background(), sql)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return text
}
