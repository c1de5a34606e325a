package retention

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// Print writes the plan for people, with times in a zone.
func (p Plan) Print(w io.Writer, zone *time.Location) error {
	var b strings.Builder
	fmt.Fprintf(&b, "policy: %s\n", p.Policy)
	for _, warning := range p.Warnings {
		fmt.Fprintf(&b, "WARNING: %s\n", warning)
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	verb := map[bool]string{true: "keep", false: "remove"}
	for _, d := range p.Backups {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", verb[d.Keep], d.Label, d.Stop.In(zone).Format("2006-01-02 15:04"),
			humanize.IBytes(uint64(max(0, d.StoredBytes))), strings.Join(d.Reasons, "; "))
	}
	for _, d := range p.Remains {
		fmt.Fprintf(t, "%s\t%s\t(remains)\t\t%s\n", verb[d.Keep], d.Label, d.Reason)
	}
	for _, e := range p.Epochs {
		for _, d := range e.WAL {
			fmt.Fprintf(t, "%s\t%s\t… %s\t%d segments\t%s\n", verb[d.Keep], d.First, d.Last, d.Segments, d.Reason)
		}
		for _, d := range e.Partials {
			fmt.Fprintf(t, "remove\t%s.partial\tvalid to %s\t\t%s\n", d.Segment, d.ValidTo, d.Reason)
		}
		if n := len(e.HistoryFiles); n > 0 {
			fmt.Fprintf(t, "remove\t%d backup history files\t\t\tno backup that stays needs them\n", n)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}
