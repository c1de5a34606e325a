package main

import (
	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/config"
)

func newConfigCommand(r *root) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration, print its schema, convert that of other tools",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return usageErrorf("no subcommand given")
		},
	}
	c.AddCommand(newConfigCheckCommand(r), newConfigSchemaCommand(r), newConfigFromPGOCommand(r), newConfigFromPgBackRestCommand(r))
	return c
}

func newConfigCheckCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and print it with all defaults filled in",
		Long: `Check the configuration file and print the configuration in effect, as YAML,
with all defaults filled in. Nothing is connected to: "walkeep check" does that.
Secrets cannot appear, since the file only names the files that hold them.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := r.config()
			if err != nil {
				return err
			}
			text, err := c.YAML()
			if err != nil {
				return err
			}
			r.printf("%s", text)
			return nil
		},
	}
}

func newConfigSchemaCommand(r *root) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r.printf("%s", config.Schema())
			return nil
		},
	}
}
