package page

import (
	"fmt"
	"time"

	"github.com/walkeep/walkeep/api"
)

// runView is a run in words.
type runView struct {
	ID, Repo, Kind, Node, Stage, Label, Error string
	State                                     api.RunState
	Symbol, Word                              string
	By                                        string
	Attempt                                   int
	Started, Ended                            moment
	Took                                      string
	// Percent is 0 to 100; -1: unknown.
	Percent          int
	Copied, Rate     string
	Left             string
	Queued, IsBackup bool
}

// stateWords have a symbol for each state, so that none is told by colour only.
var stateWords = map[api.RunState][2]string{
	api.Queued:    {"○", "waiting"},
	api.Running:   {"▶", "running"},
	api.Done:      {"✓", "done"},
	api.Failed:    {"✕", "failed"},
	api.Cancelled: {"■", "cancelled"},
	api.Lost:      {"?", "lost"},
}

func newRunView(r api.Run, at func(time.Time) moment) runView {
	words, ok := stateWords[r.State]
	if !ok {
		words = [2]string{"?", string(r.State)}
	}
	v := runView{
		ID: r.ID, Repo: r.Repo, Kind: r.Kind, Node: r.Node, Stage: cut(r.Stage), Label: string(r.Label), Error: cut(r.Error),
		State: r.State, Symbol: words[0], Word: words[1], Attempt: r.Attempt,
		Started: at(r.Started), Ended: at(r.Ended), Percent: -1, Queued: r.State == api.Queued,
		IsBackup: r.Kind == "full" || r.Kind == "differential" || r.Kind == "incremental",
	}
	switch {
	case r.By != "":
		v.By = "by " + cut(r.By)
	case r.Manual:
		v.By = "by hand"
	default:
		v.By = "by schedule"
	}
	if !r.Started.IsZero() && !r.Ended.IsZero() {
		v.Took = spell(r.Ended.Sub(r.Started))
	}
	if r.TotalBytes > 0 {
		v.Percent = int(min(max(r.CopiedBytes, 0), r.TotalBytes) * 100 / r.TotalBytes)
		v.Copied = fmt.Sprintf("%s of %s", bytesText(r.CopiedBytes), bytesText(r.TotalBytes))
	} else if r.CopiedBytes > 0 {
		v.Copied = bytesText(r.CopiedBytes)
	}
	if r.Rate > 0 {
		v.Rate = bytesText(r.Rate) + "/s"
	}
	if r.Left > 0 && !r.Final() {
		v.Left = spell(time.Duration(r.Left)*time.Second) + " left"
	}
	return v
}

// runs sorts runs into those under way, the last ones, and those that failed.
func (v *view) runs(s *api.Snapshot, at func(time.Time) moment) {
	for _, r := range s.Runs {
		switch {
		case !r.Final():
			v.Running = append(v.Running, newRunView(r, at))
			continue
		case len(v.Ended) < maxEnded:
			v.Ended = append(v.Ended, newRunView(r, at))
		}
		if (r.State == api.Failed || r.State == api.Lost) && len(v.Failures) < maxEnded {
			v.Failures = append(v.Failures, newRunView(r, at))
		}
	}
}
