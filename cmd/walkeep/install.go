package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newInstallCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:   "install DIR",
		Short: "Copy walkeep and walkeep-wal into a directory",
		Long: `Copy walkeep and walkeep-wal, which stand beside one another, into a directory.
For containers: walkeep's image has no shell and no cp, and archive_command is
called in the server's.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			for _, name := range []string{"walkeep-wal", "walkeep"} {
				if err := installProgram(filepath.Join(filepath.Dir(self), name), filepath.Join(args[0], name)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// installProgram copies a program. A server that is calling the old one sees
// either the old one or the new one: it is written under another name, made
// durable and renamed.
func installProgram(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("install %s: %w", from, err)
	}
	defer src.Close()
	dst, err := os.CreateTemp(filepath.Dir(to), ".walkeep-*")
	if err != nil {
		return fmt.Errorf("install %s: %w", to, err)
	}
	defer func() {
		if err != nil {
			_ = dst.Close()
			_ = os.Remove(dst.Name())
			err = fmt.Errorf("install %s: %w", to, err)
		}
	}()
	if _, err = io.Copy(dst, src); err != nil {
		return err
	}
	if err = dst.Chmod(0o755); err != nil {
		return err
	}
	if err = dst.Sync(); err != nil {
		return err
	}
	if err = dst.Close(); err != nil {
		return err
	}
	return os.Rename(dst.Name(), to)
}
