package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/walkeep/walkeep/config/convert"
)

// convertExits ends the help of both importers.
const convertExits = `
The configuration goes to standard output, with the notes as comments at its
top; the notes go to standard error too. Exit status 0: done; 1, with --strict:
something has to be filled in, or has no counterpart; 2: the file cannot be
read; 3: there is nothing to convert in it.`

func newConfigFromPGOCommand(r *root) *cobra.Command {
	var cluster string
	var strict bool
	c := &cobra.Command{
		Use:   "from-pgo FILE",
		Short: "Convert the backups of a PostgresCluster of PGO",
		Long: `Convert spec.backups.pgbackrest of a PostgresCluster (Crunchy's PGO) into a
configuration of walkeep: repositories, schedules, retention and what stands
under global. FILE may hold other resources too; - is standard input.
` + convertExits,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return convertFile(r, args[0], strict, func(data []byte) (*convert.Result, error) { return convert.FromPGO(data, cluster) })
		},
	}
	c.Flags().StringVar(&cluster, "name", "", "metadata.name of the PostgresCluster, if there are several")
	c.Flags().BoolVar(&strict, "strict", false, "fail if anything has no counterpart or has to be filled in")
	return c
}

func newConfigFromPgBackRestCommand(r *root) *cobra.Command {
	var stanza string
	var strict bool
	c := &cobra.Command{
		Use:   "from-pgbackrest FILE",
		Short: "Convert a pgbackrest.conf",
		Long: `Convert a pgbackrest.conf into a configuration of walkeep: repositories,
retention, servers and what stands under global. - is standard input. The
repositories stay as they are: walkeep stores below a prefix of its own beside.
` + convertExits,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return convertFile(r, args[0], strict, func(data []byte) (*convert.Result, error) { return convert.FromPgBackRest(data, stanza) })
		},
	}
	c.Flags().StringVar(&stanza, "stanza", "", "the stanza, if there are several")
	c.Flags().BoolVar(&strict, "strict", false, "fail if anything has no counterpart or has to be filled in")
	return c
}

// maxConverted is more than convert accepts, in bytes.
const maxConverted = 2 << 20

func convertFile(r *root, path string, strict bool, from func([]byte) (*convert.Result, error)) error {
	in, name := r.stdin, "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return usageErrorf("read configuration: %w", err)
		}
		defer f.Close()
		in, name = f, path
	}
	data, err := io.ReadAll(io.LimitReader(in, maxConverted))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	result, err := from(data)
	switch {
	case errors.Is(err, convert.ErrNothing):
		return fmt.Errorf("convert %s: %w (%w)", name, err, errNothingFound)
	case errors.Is(err, convert.ErrInput):
		return usageErrorf("convert %s: %w", name, err)
	case err != nil:
		return fmt.Errorf("convert %s: %w", name, err)
	}
	out, err := result.YAML(name)
	if err != nil {
		return err
	}
	r.printf("%s", out)
	fmt.Fprint(r.stderr, result.Report())
	if strict && (result.Has(convert.NeedsYou) || result.Has(convert.NoCounterpart)) {
		return withExit(exitFailed, errors.New("not everything could be converted (--strict)"))
	}
	return nil
}
