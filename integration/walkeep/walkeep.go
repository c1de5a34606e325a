// Package walkeep builds walkeep's two programs and runs them as a user would,
// for end-to-end tests, the demo and the benchmarks.
//
// A Site is one configuration file with the programs that use it. Programs run
// as the user that runs the servers of a postgres.Env (walkeep reads PGDATA
// and writes data directories that PostgreSQL must own).
package walkeep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/internal/sources"
)

// Programs are the built programs, in one directory, as walkeep-wal expects.
type Programs struct {
	Dir string
}

// Walkeep is the path of the main program.
func (p Programs) Walkeep() string { return filepath.Join(p.Dir, "walkeep") }

// WAL is the path of the archive_command helper.
func (p Programs) WAL() string { return filepath.Join(p.Dir, "walkeep-wal") }

var build = sync.OnceValues(func() (Programs, error) {
	// Not below the checkout, which the servers' user may not be able to reach.
	dir := os.Getenv("WALKEEP_TEST_BIN")
	if dir != "" {
		return Programs{Dir: dir}, nil
	}
	packages := []string{"github.com/walkeep/walkeep/cmd/walkeep", "github.com/walkeep/walkeep/cmd/walkeep-wal"}
	if err := sources.Look(packages...); err != nil { // a result that is cached counts for these sources only
		return Programs{}, err
	}
	dir, err := os.MkdirTemp("", "walkeep-bin-")
	if err != nil {
		return Programs{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return Programs{}, err
	}
	cmd := exec.Command("go", append([]string{"build", "-ldflags", "-s -w", "-o", dir + "/"}, packages...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("build walkeep: %w\n%s", err, out)
	}
	return Programs{Dir: dir}, nil
})

// Build builds both programs once per process. With $WALKEEP_TEST_BIN set,
// what is in that directory is used instead. Call [Clean] at the end.
func Build() (Programs, error) { return build() }

// Clean removes what Build made. For TestMain.
func Clean() {
	if p, err := build(); err == nil && os.Getenv("WALKEEP_TEST_BIN") == "" {
		os.RemoveAll(p.Dir)
	}
}

// Site is one configuration and the programs that work with it.
type Site struct {
	Env      *postgres.Env
	Programs Programs
	Config   string // path of the configuration file
}

// NewSite builds the programs and writes the configuration into a directory of
// the environment.
func NewSite(env *postgres.Env, yaml string) (*Site, error) {
	p, err := Build()
	if err != nil {
		return nil, err
	}
	dir, err := env.Mkdir("etc")
	if err != nil {
		return nil, err
	}
	s := &Site{Env: env, Programs: p, Config: filepath.Join(dir, "walkeep.yaml")}
	return s, s.Configure(yaml)
}

// Configure replaces the configuration.
func (s *Site) Configure(yaml string) error {
	if err := os.WriteFile(s.Config, []byte(yaml), 0o600); err != nil {
		return err
	}
	return s.Env.Own(s.Config)
}

// ArchiveSettings are the server settings that archive through this site.
func (s *Site) ArchiveSettings() map[string]string {
	return map[string]string{
		"archive_mode":    "on",
		"archive_command": fmt.Sprintf(`%s --config %s push "%%p"`, s.Programs.WAL(), s.Config),
	}
}

// Result is how a program ended.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int
}

// LastLine is the last line of stdout: the label of a backup.
func (r Result) LastLine() string {
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	return lines[len(lines)-1]
}

func (r Result) String() string {
	return fmt.Sprintf("walkeep %s: exit %d\nstdout:\n%s\nstderr:\n%s", strings.Join(r.Args, " "), r.Code, r.Stdout, r.Stderr)
}

// Command prepares walkeep with the site's configuration.
func (s *Site) Command(ctx context.Context, args ...string) *exec.Cmd {
	return s.Env.Command(ctx, s.Programs.Walkeep(), append([]string{"--config", s.Config}, args...)...)
}

// Run runs walkeep to its end. The error is only for a program that could not
// be run, or died by a signal (Code is then -1).
func (s *Site) Run(ctx context.Context, args ...string) (Result, error) {
	cmd := s.Command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := Result{Args: args, Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	return r, err
}

// Must runs walkeep and fails the test unless it ends with the code expected.
func (s *Site) Must(t testing.TB, code int, args ...string) Result {
	t.Helper()
	r, err := s.Run(context.Background(), args...)
	if err != nil || r.Code != code {
		t.Fatalf("expected exit %d: %v\n%s", code, err, r)
	}
	return r
}
