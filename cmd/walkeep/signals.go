package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalGrace is how long after the first signal further ones are ignored:
// pg_backup_stop and the release of the lease need a moment, and impatience
// must not cost them. After it the default is back: a signal ends the process.
const signalGrace = 30 * time.Second

// withSignals returns a context that SIGINT and SIGTERM cancel, with a
// *signalError as cause. The function it returns ends the watch.
func withSignals(parent context.Context, stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer signal.Stop(signals)
		select {
		case s := <-signals:
			fmt.Fprintf(stderr, "walkeep: %s: stopping and cleaning up\n", s)
			cancel(&signalError{s})
		case <-done:
			return
		}
		grace := time.NewTimer(signalGrace)
		defer grace.Stop()
		until := time.Now().Add(signalGrace).Format(time.TimeOnly)
		for {
			select {
			case s := <-signals:
				fmt.Fprintf(stderr, "walkeep: %s: clean-up is under way; from %s on, a further signal ends walkeep at once\n", s, until)
			case <-grace.C:
				return
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		close(done)
		<-ended
		cancel(nil)
	}
}

// quitQuietly ends the process at SIGQUIT, which the server sends to its
// commands too when it ends at once: the stacks of all goroutines, which Go
// prints otherwise, are of no use in its log.
func quitQuietly() {
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	go func() {
		<-quit
		os.Exit(128 + int(syscall.SIGQUIT))
	}()
}
