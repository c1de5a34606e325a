// Command walkeep-wal is what PostgreSQL calls for every WAL segment:
//
//	archive_command = 'walkeep-wal push "%p"'
//	restore_command = 'walkeep-wal get "%f" "%p"'
//
// It asks the agent beside the server. Where none runs, or none that can help,
// it does the work itself, with the same result.
//
// It has no cloud SDK in it, so that it starts in a few milliseconds. It pushes
// to repositories on file systems itself, and gets from them and from the spool
// that is filled ahead of recovery. For all else it becomes "walkeep wal push"
// or "walkeep wal get", the walkeep that lies beside it or, failing that, in
// PATH.
//
// Its exit statuses are PostgreSQL's. push: 0 is success, everything else makes
// the server try again. get: 0 is success; 1 to 125 mean "not archived", so that
// recovery ends or changes timeline; above 125 stops recovery, and is what
// every failure must be.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/walkeep/walkeep/config"
)

const usage = `usage: walkeep-wal [--config FILE] push PATH
       walkeep-wal [--config FILE] get NAME DEST
       walkeep-wal --version
`

// Exit statuses for what goes wrong here, before walkeep has started. A wrong
// command line that does not say "push" may have been meant as a get.
const (
	failPush  = 1
	usagePush = 2
	failGet   = 127 // as a shell's for a program that is not found
	usageGet  = 126
)

// version is set by the build with -ldflags "-X main.version=1.2.3".
var version string

func main() {
	quitQuietly()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
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

// run returns only if it does not become walkeep.
func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case errors.Is(err, errVersion):
		fmt.Fprintf(stdout, "walkeep-wal %s\n", thisVersion())
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "walkeep-wal: %v\n%s", err, usage)
		return c.failure
	}
	if c.get != "" {
		// A panic ends with SIGABRT, not with status 2, which the server would
		// read as "not there".
		debug.SetTraceback("crash")
	}
	// About a configuration that does not load walkeep has more to say.
	if cfg, err := config.Load(config.Path(c.config)); err == nil {
		if done, status := work(cfg, c, stderr); done {
			return status
		}
	}
	path, err := findWalkeep()
	if err == nil {
		err = syscall.Exec(path, append([]string{path}, c.args...), os.Environ())
	}
	fmt.Fprintf(stderr, "walkeep-wal: cannot run walkeep: %v\n", err)
	return c.failure
}

// work has the agent do what is asked for, or does it here. done is false if it
// is a case for walkeep.
func work(cfg *config.Config, c command, stderr io.Writer) (done bool, status int) {
	if done, status = askAgent(cfg.Agent.Socket, c, stderr); done {
		return done, status
	}
	var err error
	if c.push != "" {
		done, err = pushDirectly(cfg, c.push)
		if err != nil {
			status = failPush
		}
	} else {
		done, status, err = getDirectly(cfg, config.Path(c.config), c.get, c.dest)
	}
	if done && err != nil {
		fmt.Fprintf(stderr, "walkeep-wal: %v\n", err)
	}
	return done, status
}

var (
	errHelp    = errors.New("help")
	errVersion = errors.New("version")
)

// command is what to become.
type command struct {
	args    []string // of walkeep
	push    string   // the file to push, or ""
	get     string   // the file to get, or ""
	dest    string   // where to
	config  string   // the value of --config
	failure int      // exit status if that cannot be
}

// parse reads the command line. --config may stand anywhere. With an error, the
// command's failure is the exit status for it.
func parse(args []string) (command, error) {
	var config, words []string
	wrong := func(format string, args ...any) (command, error) {
		if len(words) > 0 && words[0] == "push" {
			return command{failure: usagePush}, fmt.Errorf(format, args...)
		}
		return command{failure: usageGet}, fmt.Errorf(format, args...)
	}
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		switch {
		case name == "--config" && inline:
			config = []string{"--config", value}
		case name == "--config":
			if i++; i == len(args) {
				return wrong("--config needs a file")
			}
			config = []string{"--config", args[i]}
		case args[i] == "--help" || args[i] == "-h":
			return command{}, errHelp
		case args[i] == "--version":
			return command{}, errVersion
		case strings.HasPrefix(args[i], "-"):
			return wrong("unknown option %s", args[i])
		default:
			words = append(words, args[i])
		}
	}
	c := command{}
	switch {
	case len(words) == 2 && words[0] == "push":
		c.failure, c.push = failPush, words[1]
	case len(words) == 3 && words[0] == "get":
		c.failure, c.get, c.dest = failGet, words[1], words[2]
	default:
		return wrong("expected push PATH or get NAME DEST")
	}
	if config != nil {
		c.config = config[1]
	}
	c.args = append(append(config, "wal", words[0], "--"), words[1:]...)
	return c, nil
}

// findWalkeep is the walkeep beside this program, or the one in PATH.
func findWalkeep() (string, error) {
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), "walkeep")
		if st, err := os.Stat(beside); err == nil && !st.IsDir() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("walkeep")
	if err != nil {
		return "", fmt.Errorf("it is neither beside %s nor in PATH", self)
	}
	return filepath.Abs(path)
}

func thisVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "devel"
}
