// Command walkeep backs up a PostgreSQL cluster, archives its WAL and restores
// it. Each subcommand is one file here that parses its flags, calls one
// function of the package that does the work, and prints the result.
//
// # Adding a subcommand
//
// Write a function `func newThingCommand(r *root) *cobra.Command` in thing.go
// and name it in [newRootCommand]. Inside RunE:
//
//   - r.config() loads the configuration file, once; r.logger() is the zap
//     logger (standard error); r.repositories(ctx, names...) opens the named
//     repositories, or all of them; r.location() is the zone to show times in.
//   - cmd.Context() is cancelled by SIGINT and SIGTERM.
//   - results go to r.stdout, and nothing else does.
//   - return errors as they are. [exitCode] turns them into the exit status;
//     wrong flags and arguments are usageErrorf, "no such backup" wraps
//     errNothingFound. Never call os.Exit.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	_ "time/tzdata" // zone names work on images that have no zone files

	"github.com/walkeep/walkeep/internal/cores"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run is main without the exit, so that deferred work is done before it.
func run(args []string) int {
	cores.Spread()
	ctx, stop := withSignals(context.Background(), os.Stderr)
	defer stop()

	r := &root{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	defer r.close()
	command := newRootCommand(r)
	command.SetArgs(args)
	command.SetOut(r.stdout)
	command.SetErr(r.stderr)

	ran, err := command.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if msg := strings.TrimRight(err.Error(), "\n"); msg != "" {
		fmt.Fprintf(r.stderr, "walkeep: %s\n", msg)
	}
	return exitCode(ran, context.Cause(ctx), err)
}
