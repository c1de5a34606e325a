package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Status is the outcome of one check.
type Status string

// The outcomes.
const (
	OK      Status = "ok"
	Warning Status = "warning" // works, and will hurt one day
	Failed  Status = "failed"
	Skipped Status = "skipped" // could not be tried, because of what else failed or is not there
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"check"`            // stable, for programs
	Target string `json:"target,omitempty"` // what of: a function, a repository
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do; never empty for warning and failed

	err error
}

// Kind says what a section is about.
type Kind string

// The kinds of sections, in the order of a report.
const (
	KindNode       Kind = "node"
	KindCluster    Kind = "cluster"
	KindRepository Kind = "repository"
	KindArchiving  Kind = "archiving"
)

// Section is all about one node or repository, or about the whole.
type Section struct {
	Kind   Kind    `json:"kind"`
	Name   string  `json:"name"`
	Place  string  `json:"place,omitempty"` // address, without secrets
	Checks []Check `json:"checks"`
}

// Report is the outcome of Run.
type Report struct {
	Cluster  string    `json:"cluster"`
	Status   Status    `json:"status"` // the worst: ok, warning or failed
	Sections []Section `json:"sections"`
}

func (s *Section) add(c Check) { s.Checks = append(s.Checks, c) }

func (s *Section) ok(name, format string, args ...any) {
	s.add(Check{Name: name, Status: OK, Detail: fmt.Sprintf(format, args...)})
}

func (s *Section) skip(name, format string, args ...any) {
	s.add(Check{Name: name, Status: Skipped, Detail: fmt.Sprintf(format, args...)})
}

func (s *Section) warn(name, detail, advice string) {
	s.add(Check{Name: name, Status: Warning, Detail: detail, Advice: advice})
}

func (s *Section) fail(name, detail, advice string) {
	s.add(Check{Name: name, Status: Failed, Detail: detail, Advice: advice})
}

// failErr is fail for an error. An error that carries advice of its own wins
// over the advice given.
func (s *Section) failErr(name string, err error, advice string) {
	detail := err.Error()
	var own interface{ Hint() string }
	if errors.As(err, &own) && own.Hint() != "" {
		advice = own.Hint()
		detail, _, _ = strings.Cut(detail, "\nhint: ")
	}
	s.add(Check{Name: name, Status: Failed, Detail: detail, Advice: advice, err: err})
}

// has reports whether a check of the section failed.
func (s *Section) failed() bool {
	for _, c := range s.Checks {
		if c.Status == Failed {
			return true
		}
	}
	return false
}

// count is the number of checks of one outcome.
func (r Report) count(status Status) int {
	n := 0
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.Status == status {
				n++
			}
		}
	}
	return n
}

// finish sets the status of the whole.
func (r *Report) finish() {
	switch {
	case r.count(Failed) > 0:
		r.Status = Failed
	case r.count(Warning) > 0:
		r.Status = Warning
	default:
		r.Status = OK
	}
}

// ErrFailed: at least one check failed.
var ErrFailed = errors.New("check failed")

// Err is nil if nothing failed. Else it is ErrFailed, and whatever the failed
// checks ran into (repo.ErrIntegrity, for instance).
func (r Report) Err() error {
	if r.count(Failed) == 0 {
		return nil
	}
	e := &failure{text: r.summary(), causes: []error{ErrFailed}}
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.err != nil {
				e.causes = append(e.causes, c.err)
			}
		}
	}
	return e
}

// failure says in a line what the report says in many.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return f.text }
func (f *failure) Unwrap() []error { return f.causes }

func (r Report) summary() string {
	done := r.count(OK) + r.count(Warning) + r.count(Failed)
	var parts []string
	if n := r.count(Failed); n > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d checks FAILED", n, done))
	} else {
		parts = append(parts, fmt.Sprintf("all %d checks passed", done))
	}
	if n := r.count(Warning); n == 1 {
		parts = append(parts, "1 warning")
	} else if n > 1 {
		parts = append(parts, fmt.Sprintf("%d warnings", n))
	}
	if n := r.count(Skipped); n > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", n))
	}
	return strings.Join(parts, ", ")
}

// marks are what the checklist shows for an outcome.
var marks = map[Status]string{OK: "ok", Warning: "WARNING", Failed: "FAILED", Skipped: "skipped"}

// WriteText writes the report as a checklist for people.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s\n", r.Cluster)
	for _, s := range r.Sections {
		b.WriteString("\n" + strings.TrimSpace(string(s.Kind)+" "+s.Name))
		if s.Place != "" {
			fmt.Fprintf(&b, " (%s)", s.Place)
		}
		b.WriteByte('\n')
		width := 0
		for _, c := range s.Checks {
			width = max(width, len(c.label()))
		}
		for _, c := range s.Checks {
			detail := indent(c.Detail, "    ")
			fmt.Fprintf(&b, "  %-7s  %-*s  %s\n", marks[c.Status], width, c.label(), detail)
			if c.Advice != "" {
				fmt.Fprintf(&b, "           -> %s\n", indent(c.Advice, "              "))
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

func (c Check) label() string { return strings.TrimSpace(c.Name + " " + c.Target) }

func indent(text, by string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}

// WriteJSON writes the report for programs.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
