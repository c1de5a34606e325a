// Command bench runs walkeep and pgBackRest side by side on one cluster, in one
// run, and prints the ratios: `make bench`. Seconds depend on the machine;
// ratios are what the project promises.
//
// Both tools get two workers, a file-system repository on the same disk, the
// same codec and level, and data in the page cache. They take turns, and the
// median of the rounds counts. pgBackRest is spared its check of archived WAL
// (archive-check=n); walkeep waits for its WAL as it always does.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/walkeep"
)

func main() {
	var o options
	flag.IntVar(&o.scale, "scale", 200, "pgbench scale; 200 makes about 3 GB")
	flag.IntVar(&o.textRows, "text-rows", 8_000_000, "rows of a table of random text; 8 million make about 1.7 GB")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement; the median counts")
	flag.IntVar(&o.segments, "segments", 16, "WAL segments to push")
	flag.IntVar(&o.readySegments, "ready", 200, "WAL segments that are ready at once, for the agent; 0 leaves it out")
	flag.IntVar(&o.files, "files", 1_000_000, "small files for the memory measurement; 0 leaves it out")
	flag.IntVar(&o.segmentsToReplay, "replay", 200, "WAL segments that recovery replays; 0 leaves it out")
	flag.IntVar(&o.segmentsToOpen, "open", 100, "WAL segments behind the backup when a restore is timed until the server is open; 0 leaves it out")
	flag.BoolVar(&o.alone, "alone", false, "without pgBackRest: for sizes and versions that it is not compared at")
	flag.IntVar(&o.major, "major", postgres.DebianMajor, "version of PostgreSQL; pgBackRest 2.45 knows up to 15, and is left out of others")
	flag.StringVar(&o.only, "only", "", "only these measurements, such as restores,replay (default: all)")
	flag.Parse()
	o.alone = o.alone || o.major != postgres.DebianMajor
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	defer walkeep.Clean()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		walkeep.Clean()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.env.Close()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"fulls", b.fulls}, {"restores", b.restores}, {"deltas", b.deltas}, {"incrementals", b.incrementals}, {"chains", b.chains}, {"pushes", b.pushes}, {"ready", b.ready}, {"dead", b.dead}, {"start", b.start}, {"opens", b.opens}, {"replay", b.replay}, {"files", b.manyFiles},
	} {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), step.name) {
			continue
		}
		if err := step.run(ctx); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

// print writes the table of all measurements.
func (b *bench) print() {
	fmt.Printf("\nCluster of %s, 2 workers, median of %d rounds. Ratio: how many times as fast as pgBackRest.\n\n", bytesText(b.size), b.rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "work\twalkeep\tpgBackRest\tratio\tgoal\tpeak RSS (walkeep / pgBackRest)\tstored (walkeep / pgBackRest)")
	for _, r := range b.rows {
		fmt.Fprintln(w, r.String())
	}
	w.Flush()
}
