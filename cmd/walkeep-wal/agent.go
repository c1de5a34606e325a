package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/walkeep/walkeep/agent/wire"
)

// askAgent has the agent beside the server do the work. done is false if there
// is none, or none that can: then this program does the work, with the same
// result. Else status is the exit status. What the agent says about a failure
// goes to stderr, which is the server's log.
func askAgent(socket string, c command, stderr io.Writer) (done bool, status int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	request := wire.Request{Verb: wire.Push, Args: []string{c.push}}
	path := &request.Args[0]
	if c.get != "" {
		request = wire.Request{Verb: wire.Get, Args: []string{c.get, c.dest}}
		path = &request.Args[1]
	}
	// The agent has another working directory.
	var err error
	if *path, err = filepath.Abs(*path); err != nil {
		return false, 0
	}
	a, err := wire.Ask(ctx, socket, request)
	switch {
	case err != nil && ctx.Err() != nil:
		return true, 128 + int(syscall.SIGTERM)
	case errors.Is(err, fs.ErrNotExist): // no agent runs here, which is as good
		return false, 0
	case err != nil:
		fmt.Fprintf(stderr, "walkeep-wal: %v; doing the work here\n", err)
		return false, 0
	}
	switch a.Kind {
	case wire.OK:
		return true, 0
	case wire.Absent:
		fmt.Fprintf(stderr, "walkeep-wal: %s\n", a.Text)
		return true, notArchived
	case wire.Failed:
		fmt.Fprintf(stderr, "walkeep-wal: agent: %s\n", a.Text)
		if c.get != "" {
			return true, usageGet
		}
		return true, failPush
	case wire.Elsewhere:
		fmt.Fprintf(stderr, "walkeep-wal: the agent at %s serves another data directory, %s; doing the work here\n", socket, a.Text)
	default:
		fmt.Fprintf(stderr, "walkeep-wal: the agent at %s cannot help: %s; doing the work here\n", socket, a.Text)
	}
	return false, 0
}
