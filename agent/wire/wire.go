// Package wire is what walkeep-wal and the agent say to one another on the
// agent's unix socket. It imports next to nothing, because walkeep-wal must
// start in a few milliseconds.
//
// A connection is one request. The client sends one line:
//
//	walkeep/1 push "/pgdata/pg_wal/000000010000000000000007"
//	walkeep/1 get "00000002.history" "/pgdata/pg_wal/RECOVERYHISTORY"
//	walkeep/1 status
//
// Arguments are quoted as in Go, so that they may hold anything. The agent
// answers with any number of "wait" lines, one at once and then one a second,
// as a sign of life, and a last line with a kind and a text:
//
//	ok "…"            done; the text of status is JSON
//	absent "…"        get: certainly in no repository
//	failed "…"        not done, and the text says why
//	elsewhere "…"     the path is not in the pg_wal of this agent's server; the text is its PGDATA
//	unavailable "…"   the agent cannot do this now, or not at all
//
// After elsewhere and unavailable, and when no such answer comes at all, the
// client does the work itself.
package wire

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of both sides.
const (
	// MaxRequest is the longest request, bytes with its newline: two paths of
	// the longest kind, quoted.
	MaxRequest = 16 << 10
	// MaxAnswer is the longest answer, bytes with its newline.
	MaxAnswer = 16 << 20
	// WaitEvery is how often the agent gives a sign of life.
	WaitEvery = time.Second
	// Patience is how long a client waits for the next one.
	Patience = 10 * time.Second
)

// prefix begins each request, and has the version of this protocol.
const prefix = "walkeep/1"

// The verbs.
const (
	Push   = "push"
	Get    = "get"
	Status = "status"
)

// arguments is how many each verb takes.
var arguments = map[string]int{Push: 1, Get: 2, Status: 0}

// ErrRequest: the line is no request of this version.
var ErrRequest = errors.New("not a request that this agent understands")

// Request is what a client asks for.
type Request struct {
	Verb string
	Args []string
}

// Line is the request as it is sent.
func (r Request) Line() string {
	var b strings.Builder
	b.WriteString(prefix + " " + r.Verb)
	for _, a := range r.Args {
		b.WriteString(" " + strconv.QuoteToASCII(a))
	}
	return b.String() + "\n"
}

// ParseRequest reads a request line, with or without its newline. Errors wrap
// ErrRequest.
func ParseRequest(line string) (Request, error) {
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), prefix+" ")
	if !ok {
		return Request{}, fmt.Errorf("%w: it does not begin with %q", ErrRequest, prefix)
	}
	verb, rest, more := strings.Cut(rest, " ")
	n, known := arguments[verb]
	if !known {
		return Request{}, fmt.Errorf("%w: verb %q", ErrRequest, verb)
	}
	r := Request{Verb: verb}
	for more {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil || quoted[0] != '"' {
			return Request{}, fmt.Errorf("%w: an argument is not quoted", ErrRequest)
		}
		arg, err := strconv.Unquote(quoted)
		if err != nil {
			return Request{}, fmt.Errorf("%w: an argument is not quoted", ErrRequest)
		}
		r.Args = append(r.Args, arg)
		rest = rest[len(quoted):]
		if rest, more = strings.CutPrefix(rest, " "); !more && rest != "" {
			return Request{}, fmt.Errorf("%w: something stands behind an argument", ErrRequest)
		}
	}
	if len(r.Args) != n {
		return Request{}, fmt.Errorf("%w: %s with %d arguments", ErrRequest, verb, len(r.Args))
	}
	return r, nil
}

// Kind is what an answer means.
type Kind string

// The kinds of answers.
const (
	OK          Kind = "ok"
	Absent      Kind = "absent"
	Failed      Kind = "failed"
	Elsewhere   Kind = "elsewhere"
	Unavailable Kind = "unavailable"
)

// Wait is the line that says that the answer is still to come.
const Wait = "wait\n"

// Answer is the last line of what the agent says.
type Answer struct {
	Kind Kind
	Text string
}

// Line is the answer as it is sent.
func (a Answer) Line() string { return string(a.Kind) + " " + strconv.Quote(a.Text) + "\n" }

// ParseAnswer reads an answer line.
func ParseAnswer(line string) (Answer, error) {
	kind, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	text, err := strconv.Unquote(quoted)
	if err != nil || quoted[0] != '"' || !slices.Contains([]Kind{OK, Absent, Failed, Elsewhere, Unavailable}, Kind(kind)) {
		return Answer{}, fmt.Errorf("not an answer: %.40q", line)
	}
	return Answer{Kind(kind), text}, nil
}
