package metrics

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/api"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}

type alert struct {
	Alert       string
	Expr        string
	Annotations map[string]string
	Labels      map[string]string
}

func alerts(t *testing.T) []alert {
	var file struct {
		Groups []struct {
			Rules []alert
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "deploy/alerts.yaml")), &file))
	require.Len(t, file.Groups, 1)
	return file.Groups[0].Rules
}

// TestRunbook: each code of a problem has an alert and a chapter, and each alert
// links to a chapter that is there.
func TestRunbook(t *testing.T) {
	runbook := read(t, "docs/runbook.md")
	chapters := map[string]string{}
	for _, part := range strings.Split(runbook, "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		chapters[name] = text
	}
	linked := map[string]bool{}
	for _, a := range alerts(t) {
		_, code, ok := strings.Cut(a.Annotations["runbook_url"], "/blob/main/docs/runbook.md#")
		require.True(t, ok, a.Alert)
		require.Contains(t, chapters, code, a.Alert)
		require.False(t, linked[code], "two alerts for %s", code)
		linked[code] = true
		require.Contains(t, []string{"warning", "critical"}, a.Labels["severity"])
		require.NotEmpty(t, a.Annotations["summary"])
		require.NotEmpty(t, a.Annotations["description"])
	}
	for _, code := range api.ProblemCodes() {
		require.True(t, linked[code], "no alert for %s", code)
	}
	for name, text := range chapters {
		require.True(t, linked[name], "no alert links to chapter %s", name)
		require.Contains(t, text, "**Means.**", name)
		require.Regexp(t, `\*\*(Do|Look and do)\.\*\*`, text, name)
		require.Contains(t, runbook, "["+name+"](#"+name+")", "the table at the top lacks %s", name)
	}
	for _, m := range regexp.MustCompile(`\]\(#([a-z-]+)\)`).FindAllStringSubmatch(runbook, -1) {
		require.Contains(t, chapters, m[1])
	}
	require.Len(t, chapters, len(api.ProblemCodes())+1) // service-down has no code: nobody is there to say it
}

// TestCodesOfProblems finds the codes in the sources.
func TestCodesOfProblems(t *testing.T) {
	code := regexp.MustCompile(`Code:\s*"([a-z]+-[a-z-]+)"`)
	require.NoError(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == ".cache" || e.Name() == "bin") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range code.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(string(b), "api.Problem") {
				require.Contains(t, api.ProblemCodes(), m[1], path)
			}
		}
		return err
	}))
}

// TestMetricsAreDocumented compares docs/metrics.md, and the names that alerts
// and dashboard use, with the collector.
func TestMetricsAreDocumented(t *testing.T) {
	page := read(t, "docs/metrics.md")
	var rows []string
	for _, d := range definitions {
		row := "| `walkeep_" + d.name + "` | "
		for i, l := range d.labels {
			if i > 0 {
				row += ", "
			}
			row += "`" + l + "`"
		}
		rows = append(rows, row+" | "+d.help+" |")
	}
	require.Contains(t, page, strings.Join(rows, "\n"))

	var names []string
	for _, d := range definitions {
		names = append(names, "walkeep_"+d.name)
	}
	var text strings.Builder
	for _, a := range alerts(t) {
		text.WriteString(a.Expr + "\n")
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, "deploy/dashboard.json")), &dashboard))
	require.NotEmpty(t, dashboard.Panels)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			text.WriteString(target.Expr + "\n")
		}
	}
	used := regexp.MustCompile(`walkeep_[a-z_]+`).FindAllString(text.String(), -1)
	require.NotEmpty(t, used)
	for _, name := range used {
		require.True(t, slices.Contains(names, name), "nobody shows %s", name)
	}
}

// TestAlertRules lets promtool check the rules, run their tests, and read what
// the dashboard asks as PromQL.
func TestAlertRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}, {"check", "rules", dashboardRules(t)}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = filepath.Join(root, "deploy")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %v: %s", args, out)
	}
	tests := read(t, "deploy/alerts_test.yaml")
	for _, a := range alerts(t) {
		require.Contains(t, tests, "name: "+a.Alert+"\n")
	}
}

// dashboardRules writes the queries of the dashboard as recording rules, which
// promtool can check.
func dashboardRules(t *testing.T) string {
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, "deploy/dashboard.json")), &dashboard))
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			rules = append(rules, rule{"walkeep:q" + string(rune('a'+len(rules)/26)) + string(rune('a'+len(rules)%26)), target.Expr})
		}
	}
	b, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	require.NoError(t, os.WriteFile(path, b, 0o600)) // JSON is YAML
	return path
}
