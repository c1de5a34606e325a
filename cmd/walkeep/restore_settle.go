package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/restore"
)

func newRestoreSettleCommand(r *root) *cobra.Command {
	var pgdata string
	c := &cobra.Command{
		Use:   "settle",
		Short: "Remove the recovery settings from a server that has reached its target",
		Long: `Remove the recovery settings from postgresql.auto.conf of a server that has reached
its target. They do nothing to that server, but a standby made of it would stop at
the same target. A restored server calls it by itself, as recovery_end_command.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			removed, err := restore.Settle(pgdata)
			if err != nil {
				return err
			}
			if len(removed) > 0 {
				r.printf("Removed from postgresql.auto.conf: %s.\n", strings.Join(removed, ", "))
			}
			return nil
		},
	}
	c.Flags().StringVar(&pgdata, "pgdata", ".", "the data directory")
	return c
}

// recoveryEndCommand is this program's own settle.
func recoveryEndCommand() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	return restore.RecoveryEndCommand(self, "restore", "settle"), nil
}
