package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/agent"
	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
)

// The exit statuses of walkeep. Scripts rely on them: README, "Exit codes".
const (
	exitDone        = 0 // done
	exitFailed      = 1 // failed
	exitUsage       = 2 // bad usage or configuration
	exitNotFound    = 3 // no such backup, not in any repository
	exitUnreachable = 4 // the restore target cannot be reached
	exitBusy        = 5 // another run holds the lease
	exitIntegrity   = 6 // what is stored is damaged
)

// exitStopRecovery is what `wal get` returns for every failure but "certainly
// not in any repository". PostgreSQL reads 1 to 125 from restore_command as
// "not there" and ends or redirects recovery; above 125 stops it (xlogarchive.c,
// RestoreArchivedFile).
const exitStopRecovery = 126

var (
	// errUsage marks wrong flags and arguments.
	errUsage = errors.New("bad usage")
	// errNothingFound marks "no such backup" and "not in any repository".
	errNothingFound = errors.New("nothing found")
)

// exitTable is the one table from errors to exit statuses; the first entry
// that errors.Is finds decides. An error that is in no entry is exitFailed.
// What is more alarming stands first, since joined errors can match several.
var exitTable = []struct {
	is   error
	code int
}{
	{errUsage, exitUsage},
	{config.ErrInvalid, exitUsage},
	{repo.ErrIntegrity, exitIntegrity},
	{repo.ErrBusy, exitBusy},
	{agent.ErrRunning, exitBusy},
	{api.ErrBusy, exitBusy},
	{errNothingFound, exitNotFound},
	{api.ErrNotFound, exitNotFound},
	{api.ErrInvalid, exitUsage},
}

// exitCode is the status for the error that command ran returned. cause is
// why the context was cancelled, or nil.
func exitCode(ran *cobra.Command, cause, err error) int {
	if isRestoreCommand(ran) {
		return walGetCode(cause, err)
	}
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	for _, row := range exitTable {
		if errors.Is(err, row.is) {
			return row.code
		}
	}
	return exitFailed
}

// walGetCode keeps restore_command's own meaning of exit statuses, also for
// wrong flags and a configuration that does not load: neither proves that the
// file is in no repository.
func walGetCode(cause, err error) int {
	var sig *signalError
	switch {
	case errors.As(cause, &sig) && sig.signal == syscall.SIGTERM:
		// The server ends recovery without complaint when restore_command
		// was ended by its own SIGTERM, and 128+15 counts as that.
		return 128 + int(syscall.SIGTERM)
	case cause == nil && errors.Is(err, errNothingFound) && !errors.Is(err, repo.ErrIntegrity):
		return exitFailed
	default:
		return exitStopRecovery
	}
}

// restoreCommandKey marks, among cobra's annotations, the subcommand that
// PostgreSQL calls as restore_command.
const restoreCommandKey = "walkeep:restore_command"

func isRestoreCommand(c *cobra.Command) bool {
	return c != nil && c.Annotations[restoreCommandKey] != ""
}

// codedError carries an exit status of its own, for a failure that is a
// finding (a repository that cannot be reached) rather than an error kind.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// withExit gives err an exit status that the table would not.
func withExit(code int, err error) error { return &codedError{code: code, err: err} }

// usageErrorf is an error for wrong flags or arguments.
func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ error }

func (e *usageError) Is(target error) bool { return target == errUsage }
func (e *usageError) Unwrap() error        { return e.error }

// signalError is the cause of a context that a signal cancelled.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return "stopped by signal: " + e.signal.String() }
