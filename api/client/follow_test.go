package client

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
)

func TestReadEvents(t *testing.T) {
	var seen []api.RunState
	lines := 0
	run, err := readEvents(strings.NewReader(": still there\n\nevent: progress\ndata: {\"id\":\"x\",\"state\":\"running\"}\n\n"+
		"event: end\ndata: {\"id\":\"x\",\"state\":\"done\",\"label\":\"20261122-010000F\"}\n\nrubbish"),
		func() { lines++ }, func(r api.Run) { seen = append(seen, r.State) })
	require.NoError(t, err)
	require.Equal(t, []api.RunState{api.Running, api.Done}, seen)
	require.EqualValues(t, "20261122-010000F", run.Label)
	require.Equal(t, 7, lines)
}

// FuzzReadEvents: what comes ends in a run that has ended, or in an error.
func FuzzReadEvents(f *testing.F) {
	f.Add("data: {\"state\":\"done\"}\n")
	f.Add("data: {\"state\":\"running\"}\ndata: x")
	f.Add(": \n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		run, err := readEvents(strings.NewReader(stream), func() {}, nil)
		if err != nil {
			require.ErrorIs(t, err, ErrUnreachable)
		} else {
			require.True(t, run.Final())
		}
	})
}
