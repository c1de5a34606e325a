package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRequests(t *testing.T) {
	for _, r := range []Request{
		{Push, []string{"/data/pg_wal/000000010000000000000001"}},
		{Push, []string{"/odd \"path\"\n\x00\xff/Ünicode"}},
		{Get, []string{"00000002.history", "pg_wal/RECOVERYHISTORY"}},
		{Verb: Status},
	} {
		got, err := ParseRequest(r.Line())
		require.NoError(t, err)
		require.Equal(t, r, got)
		require.Equal(t, 1, strings.Count(r.Line(), "\n"))
	}
	for _, line := range []string{
		"", "\n", "walkeep/1", "walkeep/2 status\n", "walkeep/1 status \"x\"\n", "walkeep/1 push\n", "walkeep/1 push x\n",
		"walkeep/1 push \"x\" \n", "walkeep/1 push \"x\"y\n", "walkeep/1 push  \"x\"\n", "walkeep/1 push `x`\n", "walkeep/1 push 'x'\n",
		"walkeep/1 remove \"x\"\n", "GET / HTTP/1.1\r\n", "walkeep/1 get \"a\"\n", "walkeep/1 status\r\n",
	} {
		_, err := ParseRequest(line)
		require.ErrorIs(t, err, ErrRequest, "%q", line)
	}
}

func TestAnswers(t *testing.T) {
	for _, a := range []Answer{{OK, ""}, {Failed, "two\nlines"}, {Elsewhere, "/data"}, {Unavailable, "x"}, {Absent, "\xff"}} {
		got, err := ParseAnswer(a.Line())
		require.NoError(t, err)
		require.Equal(t, a, got)
	}
	for _, line := range []string{"", "\n", "ok\n", "ok x\n", "okay \"x\"\n", "ok `x`\n", "ok \"x\" y\n", "wait\n", "HTTP/1.1 400 Bad Request\r\n"} {
		_, err := ParseAnswer(line)
		require.Error(t, err, "%q", line)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(Request{Push, []string{"/x"}}.Line())
	f.Add(Request{Get, []string{"a", "b\n"}}.Line())
	f.Add("walkeep/1 status\n")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := ParseRequest(line)
		if err != nil {
			require.ErrorIs(t, err, ErrRequest)
			return
		}
		again, err := ParseRequest(r.Line())
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(Answer{OK, "x"}.Line())
	f.Add("failed \"\\n\"\n")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := ParseAnswer(line)
		if err == nil {
			again, err := ParseAnswer(a.Line())
			require.NoError(t, err)
			require.Equal(t, a, again)
		}
	})
}
