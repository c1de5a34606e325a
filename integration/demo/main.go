// Command demo shows the main job on this machine: `make demo`. It starts a
// primary and a standby under load, archives from both into three repositories
// (a directory, S3, and an encrypted directory), takes a full backup, kills the
// primary, promotes the standby, drops a table by mistake, and brings back the
// moment before the drop. It removes what it made.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/integration/walkeep"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	begin := time.Now()
	err := run(ctx)
	stop()
	walkeep.Clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nThe demo took %s. Everything it made is removed.\n", time.Since(begin).Round(time.Second))
}

func run(ctx context.Context) error {
	d, err := newStage(ctx)
	if err != nil {
		return err
	}
	defer d.close()
	for _, act := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"A primary with pgbench data and a streaming standby; both archive (archive_mode=always)", d.servers},
		{"Does everything work? walkeep check tries it for real", d.check},
		{"A full backup into all three repositories, read once, from the standby", d.backup},
		{"More load; then the primary is killed (kill -9), the standby promoted, and the load goes on", d.failover},
		{"The mistake: drop table pgbench_accounts", d.mistake},
		{"What the repositories hold", d.list},
		{"Restore to the moment before the drop, from the encrypted repository", d.restore},
		{"The proof", d.proof},
	} {
		fmt.Printf("\n── %s\n\n", act.title)
		if err := act.do(ctx); err != nil {
			return err
		}
	}
	return nil
}
