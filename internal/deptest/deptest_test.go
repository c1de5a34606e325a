// Package deptest checks which package imports which: the layers of
// ARCHITECTURE.md. A failure names the rule and its reason.
package deptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/walkeep/walkeep"

// rule forbids packages below from, but for those below fromBut, to depend on
// packages below to, but for those below toBut, directly or not. Paths of ours
// begin with "./"; "./..." is all of ours.
type rule struct {
	from, fromBut []string
	to, toBut     []string
	direct        bool // only imports in the package's own files count
	why           string
}

var (
	sdks = []string{
		"github.com/aws", "github.com/Azure", "cloud.google.com/go", "google.golang.org/api", "google.golang.org/grpc",
	}
	drivers = []string{"./repo/object/s3", "./repo/object/gcs", "./repo/object/azure", "./repo/object/internal"}
	jobs    = []string{"./backup", "./archive", "./restore", "./retention"}
)

var rules = []rule{
	{
		from: []string{"./pg"}, to: []string{"./..."}, toBut: []string{"./pg"},
		why: "pg is facts of PostgreSQL; whoever reads it should need to know nothing else of walkeep",
	},
	{
		from: []string{"./repo/object"}, to: []string{"./..."}, toBut: []string{"./repo/object"},
		why: "a store is bytes under keys; what the bytes mean stays above it, so that drivers stay small and alike",
	},
	{
		from: []string{"./repo/codec"}, to: []string{"./..."}, toBut: []string{"./repo/codec"},
		why: "a codec is standard frames; anybody must be able to decode them",
	},
	{
		from: []string{"./..."}, to: sdks, direct: true, fromBut: drivers,
		why: "cloud SDKs appear in drivers only, so that everything above treats all stores alike",
	},
	{
		from: []string{"./repo"}, to: sdks, fromBut: append([]string{"./repo/dial"}, drivers...),
		why: "only repo/dial chooses drivers; a test or tool that opens a repository must not carry the SDKs",
	},
	{
		from: []string{"./repo"}, to: []string{"./..."}, toBut: []string{"./repo", "./pg", "./config", "./internal/cores"},
		why: "repo is what is stored; who stores it and when is decided above",
	},
	{
		from: []string{"./repo"}, to: []string{"./config"}, fromBut: []string{"./repo/dial"},
		why: "packages have Options; only repo/dial knows how the configuration file names them",
	},
	{
		from: []string{"./config"}, to: []string{"./..."}, toBut: []string{"./config", "./internal/cores"},
		why: "reading the configuration must not depend on what it configures",
	},
	{
		from: jobs, to: []string{"./config", "./repo/dial"},
		why: "packages have Options of their own; the YAML file is turned into them in cmd only",
	},
	{
		from: []string{"./internal/cores"}, to: []string{"./..."}, toBut: []string{"./internal/cores"},
		why: "anybody may ask how many processors there are, and must get nothing else with the answer",
	},
	{
		from: []string{"./agent"}, to: []string{"./..."}, toBut: []string{"./agent", "./archive", "./repo", "./pg", "./internal/cores", "./internal/credentials", "./internal/traces"},
		why: "the agent archives; what else runs beside a server is put together in cmd",
	},
	{
		from: []string{"./agent"}, to: []string{"./repo/dial"},
		why: "packages have Options of their own; the YAML file is turned into them in cmd only",
	},
	{
		from: []string{"./agent/wire"}, to: []string{"./..."}, toBut: []string{"./agent/wire"},
		why: "walkeep-wal, which starts for every segment, says this much to the agent and no more",
	},
	{
		from: []string{"./api"}, to: []string{"./..."}, toBut: []string{"./api", "./repo", "./pg", "./internal/cores", "./internal/credentials"},
		why: "the API shows what a Service says, and decides nothing itself",
	},
	{
		from: []string{"./..."}, to: []string{"k8s.io"}, fromBut: []string{"./kubernetes", "./integration/kube"}, direct: true,
		why: "what is asked of Kubernetes stands in one place, and all else works without it",
	},
	{
		from: []string{"./..."}, to: []string{"k8s.io"}, fromBut: []string{"./kubernetes", "./cmd/walkeep", "./integration/kube"},
		why: "only the program puts Kubernetes and the service together; tests and other programs must not carry it",
	},
	{
		from: []string{"./kubernetes"}, to: []string{"k8s.io/client-go/kubernetes", "k8s.io/client-go/informers"},
		why: "a clientset brings every kind of every API group into walkeep: two kinds are needed",
	},
	{
		from: []string{"./..."}, to: []string{"github.com/goccy/go-yaml"}, direct: true, fromBut: []string{"./config"},
		why: "YAML is decoded once, strictly, in config",
	},
	{
		from: []string{"./..."}, to: []string{"./cmd"}, fromBut: []string{"./cmd", "./integration"},
		why: "commands are the outermost layer",
	},
	{
		from: []string{"./cmd/walkeep-wal"},
		to:   append([]string{"./pg/server", "./repo/dial/cloud", "github.com/spf13", "github.com/jackc/pgx", "k8s.io"}, sdks...),
		why:  "PostgreSQL starts walkeep-wal for every segment: it must start in a few milliseconds, so it execs walkeep for what needs a cloud SDK",
	},
}

// TestImports checks every rule against what the packages really import.
func TestImports(t *testing.T) {
	for _, broken := range check(append(slices.Clone(rules), separate()...), listPackages(t)) {
		t.Error(broken)
	}
}

// TestRulesBite shows that each rule is broken by some import, so that none is
// dead.
func TestRulesBite(t *testing.T) {
	for _, r := range append(slices.Clone(rules), separate()...) {
		from, to := full(r.from[0])+"/x", full(r.to[len(r.to)-1])+"/y"
		p := &pkg{ImportPath: from, Imports: []string{to}, Deps: []string{to}}
		require.Len(t, check([]rule{r}, []*pkg{p}), 1, r.why)
		p.ImportPath = "example.org/elsewhere"
		require.Empty(t, check([]rule{r}, []*pkg{p}))
	}
	require.False(t, below(module+"/pgx", []string{"./pg"}))
}

// check returns a message for each import that breaks a rule.
func check(rules []rule, packages []*pkg) (broken []string) {
	for _, r := range rules {
		for _, p := range packages {
			if !p.ours() || !below(p.ImportPath, r.from) || below(p.ImportPath, r.fromBut) {
				continue
			}
			imported := p.Deps
			if r.direct {
				imported = p.Imports
			}
			for _, dep := range imported {
				if below(dep, r.to) && !below(dep, r.toBut) {
					broken = append(broken, fmt.Sprintf("%s imports %s%s.\nRule: %s.", p.ImportPath, dep, p.via(packages, dep), r.why))
				}
			}
		}
	}
	return broken
}

// separate are the rules that keep the jobs apart.
func separate() []rule {
	var rules []rule
	for _, job := range jobs {
		others := slices.DeleteFunc(slices.Clone(jobs), func(j string) bool { return j == job })
		rules = append(rules, rule{
			from: []string{job}, to: others,
			why: "backup, archive, restore and retention meet in repo and pg only: each can be understood, tested and replaced alone",
		})
	}
	return rules
}

// pkg is what `go list -json` says about a package, without its tests.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func (p *pkg) ours() bool { return below(p.ImportPath, []string{"./..."}) }

// via names the package of ours, imported by p, through which it depends on
// dep; "" if it imports dep itself.
func (p *pkg) via(packages []*pkg, dep string) string {
	if slices.Contains(p.Imports, dep) {
		return ""
	}
	for _, q := range packages {
		if q.ours() && slices.Contains(p.Imports, q.ImportPath) && slices.Contains(q.Deps, dep) {
			return " (through " + q.ImportPath + ")"
		}
	}
	return " (through others)"
}

func listPackages(t *testing.T) []*pkg {
	out := goList(t, "1", "-deps", "-json=ImportPath,Imports,Deps", "./...")
	var packages []*pkg
	d := json.NewDecoder(strings.NewReader(out))
	for {
		p := new(pkg)
		err := d.Decode(p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
}

// below reports whether path is one of the roots or lies below one.
func below(path string, roots []string) bool {
	for _, root := range roots {
		root = full(root)
		if path == root || strings.HasPrefix(path, root+"/") {
			return true
		}
	}
	return false
}

// full is the import path of a root.
func full(root string) string {
	if ours, ok := strings.CutPrefix(root, "."); ok {
		return strings.TrimSuffix(module+ours, "/...")
	}
	return root
}
