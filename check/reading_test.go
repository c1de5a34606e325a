package check

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
)

// TestReadingOverSQL: where a backup from here would be read over SQL, what is
// missing for that is named, with the statements that grant it; and they suffice.
func TestReadingOverSQL(t *testing.T) {
	env := postgres.New(t)
	p := env.Primary(t, postgres.Options{Major: 14, NoFsync: true})
	p.MustExec(t, "create role walkeep login")
	n := Node{Name: "a", ConnInfo: p.ConnInfoFor("walkeep", "postgres"), PGData: "/nowhere/data"}
	run := func(over OverSQL, nodes ...Node) Report {
		return nodeReport(t, Options{NoSwitch: true, OverSQL: over, Nodes: nodes})
	}
	missing := func(r Report) (found []Check) {
		for _, s := range r.Sections {
			for _, c := range s.Checks {
				if strings.Contains(c.Detail, "over SQL") {
					found = append(found, c)
				}
			}
		}
		return found
	}
	require.Empty(t, missing(run(OverSQLNever, n)))
	agent := n
	agent.Agent = "https://a:7443"
	require.Empty(t, missing(run(OverSQLWhereNeeded, agent)))
	here := n
	here.ConnInfo, here.PGData = p.ConnInfo(), p.DataDir
	require.Empty(t, missing(run(OverSQLWhereNeeded, here, n)))
	for _, c := range missing(run(OverSQLWhereNeeded, n)) {
		require.Equal(t, Warning, c.Status)
	}
	found := missing(run(OverSQLAlways, agent))
	require.Len(t, found, 3)
	for _, c := range found {
		require.Equal(t, Failed, c.Status)
	}
	for _, s := range run(OverSQLWhereNeeded, n).Sections {
		for _, c := range s.Checks {
			if c.Name == "privilege" {
				_, sql, ok := strings.Cut(c.Advice, ": ")
				require.True(t, ok)
				p.MustExec(t, sql)
			}
		}
	}
	for _, over := range []OverSQL{OverSQLWhereNeeded, OverSQLAlways} {
		require.Equal(t, OK, find(t, run(over, n), "read_over_sql", OK).Status)
	}
}
