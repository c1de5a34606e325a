package stores

import (
	"context"
	"fmt"
	"os"
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

// stopper is an S3, GCS or Azure.
type stopper interface {
	Stop() error
	Log(lines int) string
}

// Run starts a server that lives as long as the test. If the test fails, the
// end of the server's log is shown.
//
//	server := stores.Run(t, stores.StartS3, stores.Options{TLS: true})
func Run[S stopper](t TB, start func(context.Context, Options) (S, error), o Options) S {
	t.Helper()
	s, err := start(context.Background(), o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %T:\n%s", s, s.Log(60))
		}
		if err := s.Stop(); err != nil {
			t.Logf("clean up: %v", err)
		}
	})
	return s
}

// Main is the body of a TestMain whose tests share one server:
//
//	var server *stores.S3
//
//	func TestMain(m *testing.M) { os.Exit(stores.Main(m, &server, stores.StartS3, stores.Options{})) }
func Main[S stopper](m interface{ Run() int }, server *S, start func(context.Context, Options) (S, error), o Options) int {
	s, err := start(context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*server = s
	code := m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "log of %T:\n%s\n", s, s.Log(60))
	}
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
	}
	return code
}

// Bucket makes a fresh bucket or container, or fails the test.
func Bucket(t TB, server interface {
	Bucket(context.Context) (string, error)
},
) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name, err := server.Bucket(ctx)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return name
}
