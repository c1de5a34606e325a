package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
)

func TestExitCodes(t *testing.T) {
	plain := &cobra.Command{Use: "list"}
	get := &cobra.Command{Use: "get", Annotations: map[string]string{restoreCommandKey: "yes"}}
	terminated := &signalError{syscall.SIGTERM}
	for _, c := range []struct {
		command *cobra.Command
		cause   error
		err     error
		want    int
	}{
		{plain, nil, errors.New("x"), 1},
		{plain, nil, usageErrorf("x"), 2},
		{plain, nil, fmt.Errorf("x: %w", &config.Error{}), 2},
		{plain, nil, fmt.Errorf("x: %w", errNothingFound), 3},
		{plain, nil, &repo.BusyError{}, 5},
		{plain, nil, fmt.Errorf("x: %w", &repo.DamageError{}), 6},
		{plain, nil, errors.Join(errors.New("x"), errNothingFound, &repo.DamageError{}), 6},
		{plain, nil, withExit(4, errNothingFound), 4},
		{plain, nil, fmt.Errorf("x: %w", api.NewFault(409, "", api.ErrBusy)), 5},
		{plain, nil, fmt.Errorf("x: %w", api.NewFault(404, "", api.ErrNotFound)), 3},
		{plain, nil, fmt.Errorf("x: %w", api.NewFault(422, "", api.ErrInvalid)), 2},
		{plain, nil, fmt.Errorf("x: %w", api.NewFault(503, "", api.ErrNotLeader)), 1},
		{plain, terminated, context.Canceled, 1},
		{nil, nil, usageErrorf("x"), 2},

		{get, nil, errNothingFound, 1},
		{get, nil, errors.New("x"), 126},
		{get, nil, usageErrorf("x"), 126},
		{get, nil, &config.Error{}, 126},
		{get, nil, withExit(3, errors.New("x")), 126},
		{get, nil, errors.Join(errNothingFound, &repo.DamageError{}), 126},
		{get, terminated, errNothingFound, 143},
		{get, &signalError{os.Interrupt}, errNothingFound, 126},
	} {
		require.Equal(t, c.want, exitCode(c.command, c.cause, c.err), "%v %v", c.cause, c.err)
	}
}

// syncBuffer can be written and read by several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestSignals: the first signal cancels the context and says so, a second one
// is ignored, with a message.
func TestSignals(t *testing.T) {
	var stderr syncBuffer
	ctx, stop := withSignals(context.Background(), &stderr)
	defer stop()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	<-ctx.Done()
	var cause *signalError
	require.ErrorAs(t, context.Cause(ctx), &cause)
	require.Equal(t, syscall.SIGTERM, cause.signal)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT))
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "clean-up is under way") }, 10*time.Second, time.Millisecond)
	require.Contains(t, stderr.String(), "walkeep: terminated: stopping and cleaning up\n")
}

func TestSignalsStop(t *testing.T) {
	ctx, stop := withSignals(context.Background(), io.Discard)
	stop()
	require.ErrorIs(t, context.Cause(ctx), context.Canceled)
}
