package prefetch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// logName is the file in the spool that a detached prefetcher writes its
// messages to.
const logName = "log"

// Detach starts a program that runs a prefetcher for the recovery, in a
// session of its own and with none of our files, so that neither the end of
// this process nor that of the server's command waits for it.
//
// Not where PostgreSQL itself is process 1, as in some container images: the
// orphan would become its child, and the postmaster takes the death of a child
// by a signal for a crashed backend and restarts everything (CleanupBackend).
func Detach(r *Recovery, program string, args ...string) error {
	if b, err := os.ReadFile("/proc/1/comm"); err == nil {
		if c := strings.TrimSpace(string(b)); c == "postgres" || c == "postmaster" {
			return errors.New("PostgreSQL is process 1, which would adopt a background process: use the agent")
		}
	}
	s, err := openSpool(r, true)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.path(logName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a prefetcher: %w", err)
	}
	return cmd.Process.Release()
}
