// Package convert turns the configurations of other tools into one of walkeep:
// a PostgresCluster of PGO (Crunchy's operator), and pgbackrest.conf.
//
// What has a counterpart is taken over. What has none is never dropped in
// silence: a [Note] says so. Secrets are never copied; a note says where they
// go. What is not a valid value for walkeep is left out, with a note, so that
// the result can be read by [config.Parse], but for what a [NeedsYou] note
// names.
//
// The repositories themselves are not converted: walkeep does not read
// pgBackRest's format. The new repository lies beside the old one, below the
// prefix walkeep/, where pgBackRest stores nothing, so that both can be used
// until the backups of the old one are no longer needed.
package convert

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walkeep/walkeep/config"
)

// What the functions of this package return.
var (
	// ErrInput: this is not what the function reads.
	ErrInput = errors.New("cannot be read")
	// ErrNothing: there is nothing to convert in it.
	ErrNothing = errors.New("nothing to convert")
)

// Kind is what a note is about.
type Kind int

// The kinds, in the order in which they are printed.
const (
	NeedsYou      Kind = iota // something has to be filled in or done
	NoCounterpart             // walkeep has nothing like it, or does it another way
	NotNeeded                 // walkeep does it always, or needs no setting
)

var titles = map[Kind]string{
	NeedsYou:      "Needs you",
	NoCounterpart: "Has no counterpart",
	NotNeeded:     "Needs no setting",
}

// Note says what became of one setting.
type Note struct {
	Kind Kind
	// Setting is its name where it came from; "" for what is missing.
	Setting string
	Text    string
}

// String is the note in one line.
func (n Note) String() string {
	if n.Setting == "" {
		return n.Text
	}
	return n.Setting + ": " + n.Text
}

// Result is a configuration, and what is to be said about it.
type Result struct {
	Config *config.Config
	Notes  []Note
}

// Has reports whether there are notes of a kind.
func (r *Result) Has(k Kind) bool {
	return slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Kind == k })
}

// Report is the notes, by kind, as text.
func (r *Result) Report() string {
	var b strings.Builder
	for _, k := range []Kind{NeedsYou, NoCounterpart, NotNeeded} {
		if !r.Has(k) {
			continue
		}
		fmt.Fprintf(&b, "%s:\n", titles[k])
		for _, n := range r.Notes {
			if n.Kind == k {
				fmt.Fprintf(&b, "  - %s\n", n)
			}
		}
	}
	return b.String()
}

// YAML is the configuration as a file, with the notes as comments at its top.
// source says what it was made from.
func (r *Result) YAML(source string) ([]byte, error) {
	body, err := r.Config.YAML()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made from %s.\n", oneLine(source))
	for line := range strings.Lines(r.Report()) {
		b.WriteString("# " + line)
	}
	b.Write(body)
	return []byte(b.String()), nil
}

func (r *Result) note(k Kind, setting, format string, args ...any) {
	r.Notes = append(r.Notes, Note{k, oneLine(setting), oneLine(fmt.Sprintf(format, args...))})
}

// finish sorts the repositories, and lets the configuration be read as a file
// would be: what is refused then needs the user.
func (r *Result) finish() error {
	repos := &r.Config.Repos
	if len(*repos) == 0 {
		return fmt.Errorf("%w: no repository is configured", ErrNothing)
	}
	slices.SortFunc(*repos, func(a, b config.Repo) int { return strings.Compare(a.Name, b.Name) })
	body, err := r.Config.YAML()
	if err != nil {
		return err
	}
	var refused *config.Error
	if _, err = config.Parse("", body); errors.As(err, &refused) {
		for _, p := range refused.Problems {
			r.note(NeedsYou, p.Field, "%s; expected %s", p.Found, p.Expected)
		}
	} else if err != nil {
		return err
	}
	return nil
}

// oneLine keeps a text from the input inside its comment.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\u0085' || c == '\u2028' || c == '\u2029' || c == '\ufeff' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
