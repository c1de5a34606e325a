package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid marks a configuration that cannot be read or is refused.
var ErrInvalid = errors.New("invalid configuration")

// Error is a refused configuration with everything that is wrong with it, in
// the order of the file. errors.Is(err, ErrInvalid) is true.
type Error struct {
	File     string
	Problems []Problem
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Line, Column int    // from 1; 0 if the file as a whole is meant
	Field        string // as in repos[0].s3.bucket; "" for the whole file
	Found        string // what stands there
	Expected     string // what should; may be empty
}

// Error lists the problems, one a line, each with its place.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
		if p.Field != "" {
			b.WriteString(p.Field + ": ")
		}
		b.WriteString(p.Found)
		if p.Expected != "" {
			b.WriteString("; expected " + p.Expected)
		}
	}
	return b.String()
}

// Is makes every Error an ErrInvalid.
func (e *Error) Is(target error) bool { return target == ErrInvalid }

func (e *Error) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}

// quote shows a value from the file in a message, on one line and not too long.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:57]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// closest is the candidate that s is most likely a misspelling of, or "".
func closest(s string, candidates []string) string {
	best, bestDistance := "", len(s)/3+2
	for _, c := range candidates {
		if d := distance(strings.ToLower(strings.ReplaceAll(s, "_", "-")), c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace to get from a
// to b (Levenshtein). Long words are not compared.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
