package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/internal/traces"
	"github.com/walkeep/walkeep/repo"
)

// forPeople is the patience of subcommands that somebody looks at.
const forPeople = 20 * time.Second

// root is what the subcommands share: the global flags, and what they lead to,
// made when first asked for. One goroutine uses it.
type root struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	configPath string
	logLevel   string
	logFormat  string
	remote     remoteFlags

	// patience, if set before repositories is called, bounds how long a
	// repository that does not answer is tried.
	patience time.Duration

	loaded  *config.Config
	log     *zap.Logger
	traces  *traces.Provider // nil: none are made
	closers []func()
	opened  []*repo.Repository // by repositories
}

// newRootCommand is the whole command tree.
func newRootCommand(r *root) *cobra.Command {
	c := &cobra.Command{
		Use:           "walkeep",
		Short:         "Back up PostgreSQL, archive its WAL everywhere, restore any moment",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return usageErrorf("no subcommand given")
		},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if isRestoreCommand(c) {
				// A panic ends with SIGABRT, not with status 2, which
				// PostgreSQL would read as "not there".
				debug.SetTraceback("crash")
			}
			if err := r.checkRemote(c); err != nil {
				return err
			}
			return r.startLog()
		},
	}
	c.CompletionOptions.HiddenDefaultCmd = true
	f := c.PersistentFlags()
	f.StringVar(&r.configPath, "config", "", "configuration file (default $WALKEEP_CONFIG, then "+config.DefaultPath+")")
	f.StringVar(&r.logLevel, "log-level", "warn", "debug, info, warn or error")
	f.StringVar(&r.logFormat, "log-format", "", "console or json (default: console on a terminal, else json)")
	r.remote.register(c)
	c.AddCommand(
		newAgentCommand(r),
		newBackupCommand(r),
		newCheckCommand(r),
		newConfigCommand(r),
		newCopyCommand(r),
		newExpireCommand(r),
		newInstallCommand(r),
		newDrillCommand(r),
		newExtractCommand(r),
		newListCommand(r),
		newPauseCommand(r),
		newPinCommand(r),
		newRestoreCommand(r),
		newResumeCommand(r),
		newRunCommand(r),
		newRunsCommand(r),
		newServeCommand(r),
		newShowCommand(r),
		newTimelineCommand(r),
		newUnpinCommand(r),
		newVerifyCommand(r),
		newVersionCommand(r),
		newWALCommand(r),
	)
	markUsageErrors(c)
	return c
}

// markUsageErrors makes what cobra itself finds wrong, flags and number of
// arguments, an errUsage in every subcommand.
func markUsageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageErrorf("%w (see %s --help)", err, c.CommandPath())
	})
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageErrorf("%w (see %s --help)", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markUsageErrors(sub)
	}
}

// configFile is the file that config reads.
func (r *root) configFile() string { return config.Path(r.configPath) }

// config is the configuration, loaded and validated at the first call.
func (r *root) config() (*config.Config, error) {
	if r.loaded == nil {
		c, err := config.Load(r.configFile())
		if err != nil {
			return nil, err
		}
		r.loaded = c
	}
	return r.loaded, nil
}

// location is the zone in which people are shown times: the configured one,
// else the machine's.
func (r *root) location() *time.Location {
	if c, err := r.config(); err == nil {
		return c.Location()
	}
	return time.Local
}

// close releases what was opened, last first.
func (r *root) close() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
	if r.log != nil {
		_ = r.log.Sync() // standard error cannot always be synced
	}
}

// printf writes to standard output.
func (r *root) printf(format string, args ...any) { fmt.Fprintf(r.stdout, format, args...) }
