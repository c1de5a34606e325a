package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

// writeTable prints every round of a run.
func writeTable(out io.Writer, r result) {
	fmt.Fprintf(out, "\n%s, seed %d\n", r.Name, r.Seed)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "round\tfault\tbeside it\tpg_rewind\ttimeline\tsegments\tmissing\trows\tlost\tarchived after\ttook\tnotes")
	for _, x := range append(append([]roundResult{}, r.Rounds...), r.Final...) {
		fmt.Fprintf(w, "%d\t%s\t%s\t%v\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", x.Round, x.Main, x.Side, x.Rewind, x.Timeline,
			x.Segments, x.Missing, x.Rows, x.Lost, x.Settled.Round(100*time.Millisecond), x.Took.Round(time.Second), commaList(x.Notes...))
	}
	_ = w.Flush()
}

// writeSummary prints one line per run.
func writeSummary(out io.Writer, all []result) {
	fmt.Fprintln(out, "\n| | rounds | with a gap | segments missing | rows lost | lost in the restore of the first backup | acknowledged |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	for _, r := range all {
		missing, lost := r.total()
		gaps, last := 0, 0
		for _, x := range r.Rounds {
			if x.Missing > 0 {
				gaps++
			}
		}
		acked := 0
		for _, x := range r.Final {
			last, acked = max(last, x.Lost), x.Acked
		}
		fmt.Fprintf(out, "| %s | %d | %d | %d | %d | %d | %d |\n", r.Name, len(r.Rounds), gaps, missing, lost, last, acked)
	}
}

func writeJSON(path string, all []result) error {
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
