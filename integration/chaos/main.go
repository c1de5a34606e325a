// Command chaos is the failover proof: `make chaos ROUNDS=50`. Real Patroni
// clusters of three, clients that write down what was acknowledged, faults in
// random order, and after every round a restore from the archive that must have
// all that the surviving primary has. pgBackRest goes through the same beside
// it.
//
// Clusters run at the same time, each on machines of its own (package
// integration/patroni). A run is repeated with -seed: the same faults in the same
// order; what the machine makes of them differs from run to run.
//
// After an interrupt the round under way is the last one, and the first backup is
// restored as at the end of every run; a second one stops at once.
//
// Exit status 1 means that a round of walkeep's ended with a gap or a lost row,
// or that a run did not come to its end.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/walkeep/walkeep/integration/walkeep"
)

func main() {
	var (
		rounds  = flag.Int("rounds", 10, "rounds for each cluster")
		seed    = flag.Uint64("seed", uint64(time.Now().UnixNano()), "what chance decides; the same faults for every cluster")
		which   = flag.String("clusters", "walkeep:always,walkeep:on+agent,pgbackrest:on", "tool:archive_mode, or tool:archive_mode+agent, separated by commas")
		clients = flag.Int("clients", 4, "connections that write to whoever leads; one more on each node")
		pause   = flag.Duration("pause", 10*time.Millisecond, "of each client after a transaction")
		file    = flag.String("json", "", "write the results to this file, too")
		svg     = flag.String("svg", "", "draw the coverages into this file")
	)
	flag.Parse()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	enough := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt)
	go func() {
		<-signals
		fmt.Fprintln(os.Stderr, "chaos: this round is the last; interrupt again to stop at once")
		close(enough)
		<-signals
		stop()
	}()
	var all []options
	for name := range strings.SplitSeq(*which, ",") {
		tool, mode, _ := strings.Cut(name, ":")
		mode, agent := strings.CutSuffix(mode, "+agent")
		all = append(all, options{
			tool: tool, archiveMode: mode, agent: agent,
			rounds: *rounds, seed: *seed, clients: *clients, pause: *pause, log: os.Stderr, enough: enough,
		})
	}
	ok, err := runAll(ctx, os.Stdout, all, *file, *svg)
	walkeep.Clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// runAll runs all clusters at the same time and reports. ok: walkeep lost
// nothing anywhere.
func runAll(ctx context.Context, out io.Writer, all []options, file, svg string) (ok bool, err error) {
	results := make([]result, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, o := range all {
		wg.Go(func() { results[i], errs[i] = runWorld(ctx, o) })
	}
	wg.Wait()
	ok = true
	for i, r := range results {
		writeTable(out, r)
		missing, lost := r.total()
		for _, x := range r.Final {
			missing, lost = missing+x.Missing, lost+x.Lost
		}
		if all[i].tool == "walkeep" && missing+lost > 0 {
			ok = false
		}
		if errs[i] != nil {
			fmt.Fprintln(os.Stderr, "chaos:", errs[i])
			err = errs[i]
		}
	}
	writeSummary(out, results)
	if file != "" {
		if e := writeJSON(file, results); e != nil {
			return ok, e
		}
	}
	if svg != "" {
		if e := os.WriteFile(svg, []byte(drawSVG(results)), 0o644); e != nil {
			return ok, e
		}
	}
	return ok, err
}
