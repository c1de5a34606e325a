package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
)

// How much of each list the page shows; the REST API has the rest.
const (
	maxProblems = 12
	maxNext     = 8
	maxEnded    = 10
	maxBackups  = 60
	maxGaps     = 8
	maxText     = 600 // of a message
)

// view is what the template shows: a snapshot in words.
type view struct {
	Cluster, Version, SystemID string
	Leader                     string
	Leading                    bool
	Zone                       string
	At                         moment
	Level                      api.Level
	Verdict                    string
	Detail                     string
	// Window is what can be restored to.
	Window   *windowView
	Problems []problemView
	More     int // problems that are not shown
	Running  []runView
	Next     []nextView
	Ended    []runView
	Failures []runView
	Nodes    []nodeView
	Repos    []repoView
	Spans    []spanLink
}

// windowView is the promise: from when to when the cluster can be restored.
type windowView struct {
	From, To moment
	Where    string // repositories
	Branches bool   // there are other windows besides
}

type problemView struct {
	Level   api.Level
	Code    string
	Where   string
	Text    string
	Since   moment
	Runbook string
}

type nextView struct {
	Repo, Kind string
	At         moment
}

type spanLink struct {
	Span    span
	Text    string
	Current bool
}

// newView puts a snapshot into words, in its time zone.
func newView(s *api.Snapshot, of span, now time.Time, runbook string) *view {
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil || s.TimeZone == "" {
		zone = time.UTC
	}
	now = now.In(zone)
	at := func(t time.Time) moment { return moment{t.In(zone), now} }
	v := &view{
		Cluster: s.Cluster, Version: s.Version, Leader: s.Leader, Leading: s.Leading,
		Zone: zoneName(now), At: at(s.At), Level: level(s.Level),
	}
	if s.SystemID != nil {
		v.SystemID = s.SystemID.String()
	}
	v.verdict(s)
	v.Window = newWindowView(s, now)
	v.problems(s, at, runbook)
	v.runs(s, at)
	for _, n := range s.Next[:min(len(s.Next), maxNext)] {
		v.Next = append(v.Next, nextView{n.Repo, n.Kind, at(n.At)})
	}
	for _, n := range s.Nodes {
		v.Nodes = append(v.Nodes, newNodeView(n, at))
	}
	for i := range s.Repos {
		v.Repos = append(v.Repos, newRepoView(s, &s.Repos[i], of, now))
	}
	for _, l := range spans {
		v.Spans = append(v.Spans, spanLink{l.span, l.text, l.span == of})
	}
	return v
}

// zoneName is the zone of t as it was configured, or its abbreviation if it is
// the machine's own, which Go calls "Local".
func zoneName(t time.Time) string {
	if t.Location() != time.Local {
		return t.Location().String()
	}
	name, _ := t.Zone()
	return name
}

// level is a known level: what is not known is not well.
func level(l api.Level) api.Level {
	switch l {
	case api.OK, api.Warning, api.Critical:
		return l
	}
	return api.Warning
}

func (v *view) verdict(s *api.Snapshot) {
	count := map[api.Level]int{}
	for _, p := range s.Problems {
		count[level(p.Level)]++
	}
	var parts []string
	if n := count[api.Critical]; n > 0 {
		parts = append(parts, plural(n, "critical problem", "critical problems"))
	}
	if n := count[api.Warning]; n > 0 {
		parts = append(parts, plural(n, "warning", "warnings"))
	}
	v.Detail = strings.Join(parts, ", ")
	switch v.Level {
	case api.OK:
		v.Verdict = "All is well"
	case api.Warning:
		v.Verdict = "Needs attention"
	default:
		v.Verdict = "Not well"
	}
}

// newWindowView finds the window that reaches furthest, and the repositories
// that have one like it.
func newWindowView(s *api.Snapshot, now time.Time) *windowView {
	var from, to time.Time
	total := 0
	for _, r := range s.Repos {
		for _, w := range r.Windows {
			total++
			if w.Latest.After(to) || w.Latest.Equal(to) && w.Earliest.Before(from) {
				from, to = w.Earliest, w.Latest
			}
		}
	}
	if total == 0 {
		return nil
	}
	var names []string
	for _, r := range s.Repos {
		for _, w := range r.Windows {
			if !w.Earliest.After(from) && to.Sub(w.Latest) < time.Minute {
				names = append(names, r.Name)
				break
			}
		}
	}
	return &windowView{
		From: moment{from.In(now.Location()), now}, To: moment{to.In(now.Location()), now},
		Where: strings.Join(names, ", "), Branches: total > len(s.Repos),
	}
}

func (v *view) problems(s *api.Snapshot, at func(time.Time) moment, runbook string) {
	sorted := slices.Clone(s.Problems)
	slices.SortStableFunc(sorted, func(a, b api.Problem) int { return cmp.Compare(rank(a.Level), rank(b.Level)) })
	for _, p := range sorted[:min(len(sorted), maxProblems)] {
		where := strings.Trim(p.Repo+" "+p.Node, " ")
		if where != "" && strings.Contains(p.Text, p.Repo) && strings.Contains(p.Text, p.Node) {
			where = "" // the sentence says it
		}
		v.Problems = append(v.Problems, problemView{
			Level: level(p.Level), Code: p.Code, Where: where,
			Text: cut(p.Text), Since: at(p.Since), Runbook: runbook + "#" + p.Code,
		})
	}
	v.More = len(sorted) - len(v.Problems)
}

// rank sorts the worst first.
func rank(l api.Level) int {
	return slices.Index([]api.Level{api.Critical, api.Warning, api.OK}, level(l))
}

// cut keeps a message readable; it may come from a server or a store.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

type nodeView struct {
	Name, Role, Error, Timeline, LSN, Lag, Version string
	Up                                             bool
	Agent                                          string
	AgentUp                                        bool
	AgentKnown                                     bool
	Queues                                         []string
}

func newNodeView(n api.Node, at func(time.Time) moment) nodeView {
	v := nodeView{Name: n.Name, Role: n.Role, Error: cut(n.Error), Version: n.Version, Up: n.Up}
	if n.Timeline > 0 {
		v.Timeline = fmt.Sprint(n.Timeline)
	}
	if n.LSN > 0 {
		v.LSN = n.LSN.String()
	}
	switch {
	case n.Role == "primary" || !n.Up:
	case n.Lag < 0:
		v.Lag = "unknown"
	case n.Lag == 0:
		v.Lag = "none"
	default:
		v.Lag = bytesText(n.Lag)
	}
	a := n.Agent
	if a == nil {
		return v
	}
	v.AgentKnown, v.AgentUp, v.Agent = true, a.Up, cut(a.Error)
	for _, q := range a.Queues {
		if q.Waiting == 0 && q.Error == "" && q.Dropped == 0 {
			continue
		}
		text := q.Repo + ": " + plural(q.Waiting, "file waits", "files wait") + " (" + bytesText(q.WaitingBytes) + ")"
		if !q.Oldest.IsZero() {
			text += ", the oldest for " + spell(at(q.Oldest).now.Sub(q.Oldest))
		}
		if q.Dropped > 0 {
			text += fmt.Sprintf(", %s dropped", numberText(int(q.Dropped)))
		}
		if q.Error != "" {
			text += ": " + cut(q.Error)
		}
		v.Queues = append(v.Queues, text)
	}
	return v
}
