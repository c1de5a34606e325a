package agent

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
)

// look surveys a node's pg_wal, with a clock that can be moved.
type look struct {
	s   *surveyor
	now time.Time
	n   *node
}

func newLook(n *node) *look {
	l := &look{n: n, now: time.Now()}
	l.s = &surveyor{dir: n.dir + "/pg_wal", opts: &Options{Clock: func() time.Time { return l.now }}, rested: map[string]resting{}}
	return l
}

func (l *look) finds(t *testing.T) (names []string) {
	t.Helper()
	control, err := pg.ReadControl(l.n.dir)
	require.NoError(t, err)
	w, err := l.s.read(control)
	require.NoError(t, err)
	found, err := l.s.survey(context.Background(), w, func(string, identity) bool { return false })
	require.NoError(t, err)
	names = []string{}
	for _, f := range found {
		names = append(names, f.name)
	}
	return names
}

// TestSurvey: what is finished is found, whatever its mark; what is being
// written, and what the server keeps for later, is not.
func TestSurvey(t *testing.T) {
	n := newNode(t, pg.StateArchiveRecovery)
	done := n.segments(t, 0, 0, ".done")[0]
	unmarked := n.segments(t, 1, 1, "")[0]
	n.stream.Noise(20) // some of the third
	current, content := n.stream.Segment(2)
	n.file(t, string(current), content, "")
	_, old := n.stream.Segment(0)
	n.file(t, string(segmentSize.Name(1, n.stream.First+3)), old, "")                         // kept for later
	n.file(t, string(segmentSize.Name(1, n.stream.First+4)), make([]byte, segmentSize), "")   // made for later
	n.file(t, string(segmentSize.Name(1, n.stream.First+5)), make([]byte, segmentSize/2), "") // being made
	n.file(t, "xlogtemp.123", content, "")
	l := newLook(n)
	both := []string{string(done), string(unmarked)}
	require.Equal(t, both, l.finds(t))
	l.now = l.now.Add(time.Hour)
	require.Equal(t, both, l.finds(t), "the current one has rested, and ends early")

	// A switch finishes it; nothing follows yet, and there is no mark.
	n.stream.Switch()
	_, content = n.stream.Segment(2)
	n.file(t, string(current), content, "")
	require.Equal(t, both, l.finds(t), "it may still be written to")
	l.now = l.now.Add(quiet)
	require.Equal(t, append(both, string(current)), l.finds(t))
}

// TestSurveyStandby: a standby whose primary died has marked the segment that
// it was receiving. It is not taken for a segment, and becomes a partial one
// when another timeline leaves there.
func TestSurveyStandby(t *testing.T) {
	n := newNode(t, pg.StateArchiveRecovery)
	n.stream.Noise(20)
	name, content := n.stream.Segment(0)
	n.file(t, string(name), content, ".done")
	l := newLook(n)
	require.Empty(t, l.finds(t))
	l.now = l.now.Add(time.Hour)
	require.Empty(t, l.finds(t))

	n.file(t, "00000002.history", []byte("1\t"+n.stream.LSN().String()+"\tno recovery target specified\n"), "")
	require.Equal(t, []string{"00000002.history", string(name)}, sorted(l.finds(t)))
	n.file(t, "00000002.history", []byte("garbage"), "")
	require.Equal(t, []string{"00000002.history"}, l.finds(t), "whether it may be archived is decided elsewhere")
}

func sorted(names []string) []string {
	slices.SortFunc(names, func(a, b string) int { return len(a) - len(b) })
	return names
}

// TestSurveyOtherCluster: WAL of another cluster is an error, and not found.
func TestSurveyOtherCluster(t *testing.T) {
	n := newNode(t, pg.StateProduction)
	other := waltest.New(cluster + 1)
	other.Fill(1)
	for i := range 2 {
		name, content := other.Segment(i)
		n.file(t, string(name), content, "")
	}
	control, err := pg.ReadControl(n.dir)
	require.NoError(t, err)
	l := newLook(n)
	w, err := l.s.read(control)
	require.NoError(t, err)
	found, err := l.s.survey(context.Background(), w, func(string, identity) bool { return false })
	require.ErrorContains(t, err, "another cluster")
	require.Empty(t, found)
}
