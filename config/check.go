package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/token"
)

// MaxRepos is the largest number of repositories of a cluster.
const MaxRepos = 4

// RepoNames are the names that repositories can have.
var RepoNames = []string{"repo1", "repo2", "repo3", "repo4"}

// checker looks for what each value alone does not show. It runs on what could
// be decoded, also when there were problems, and before defaults are set, so
// that a value of zero is one that was written.
type checker struct{ *decoder }

func check(c *Config, d *decoder) {
	k := checker{d}
	if c.Cluster != "" && !isClusterName(c.Cluster) {
		k.refuse("cluster", "found "+quote(c.Cluster), clusterNameRule)
	}
	k.postgres(&c.Postgres)
	k.between("archive.workers", c.Archive.Workers, 1, maxWorkers)
	k.absolute("agent.socket", c.Agent.Socket)
	if n := len(c.Agent.Socket); n > MaxSocket {
		k.refuse("agent.socket", fmt.Sprintf("found a path of %d bytes", n), fmt.Sprintf("at most %d, which is what the kernel allows", MaxSocket))
	}
	if c.Archive.Spool.Path != NoSpool {
		k.absolute("archive.spool.path", c.Archive.Spool.Path)
	}
	k.between("backup.workers", c.Backup.Workers, 1, maxWorkers)
	k.between("restore.workers", c.Restore.Workers, 1, maxWorkers)
	k.stream(&c.Archive)
	k.drills(&c.Drills)
	k.agentAPI(&c.Agent)
	k.service(&c.Service)
	k.repos(c)
}

// slotName is what the server accepts as the name of a replication slot.
var slotName = regexp.MustCompile(`^[a-z0-9_]+$`)

func (k checker) stream(a *Archive) {
	k.absolute("archive.stream-spool", a.StreamSpool)
	if k.present("archive.slot") && !(slotName.MatchString(a.Slot) && len(a.Slot) <= maxName) && !k.refused(k.positions["archive.slot"]) {
		k.refuse("archive.slot", "found "+quote(a.Slot), "1 to 63 lower-case letters, digits and '_'")
	}
	if at := k.positions["archive.stream-interval"]; at != nil && !k.refused(at) && time.Duration(a.StreamInterval) < time.Second {
		k.refuse("archive.stream-interval", "found "+time.Duration(a.StreamInterval).String(), "1s or more")
	}
	for _, field := range []string{"archive.slot", "archive.stream-interval", "archive.stream-spool"} {
		if k.present(field) && !a.Stream {
			k.refuse(field, "found a setting of streaming", "archive.stream: true with it")
		}
	}
}

func (k checker) agentAPI(a *Agent) {
	for field, path := range map[string]string{
		"agent.tls.cert-file": a.TLS.CertFile, "agent.tls.key-file": a.TLS.KeyFile, "agent.token-file": a.TokenFile,
		"agent.tls.client-ca-file": a.TLS.ClientCAFile, "agent.tls.ca-file": a.TLS.CAFile,
	} {
		k.absolute(field, path)
	}
	if (a.TLS.CertFile == "") != (a.TLS.KeyFile == "") {
		k.refuse("agent.tls", "found one of cert-file and key-file", "both, or none")
	}
	if a.Listen == "" {
		return
	}
	if _, port, err := net.SplitHostPort(a.Listen); err != nil || port == "" {
		k.refuse("agent.listen", "found "+quote(a.Listen), `a host and a port, such as "10.0.0.5:7443" or ":7443"`)
	}
	if a.TLS.CertFile == "" {
		k.refuse("agent.listen", "found no certificate for it", "agent.tls.cert-file and key-file")
	}
	if a.TLS.ClientCAFile == "" && a.TokenFile == "" {
		k.refuse("agent.listen", "found nothing that tells who may use it", "agent.tls.client-ca-file, agent.token-file, or both")
	}
}

const maxWorkers = 64

const clusterNameRule = "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit and not ending in '.'"

var clusterName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$`)

// maxName is the length of the longest name of a cluster, a slot (NAMEDATALEN - 1)
// or a namespace. It does not stand in the expressions: a repetition of up to 61
// takes half a millisecond to compile, in a program that starts for every segment.
const maxName = 63

func isClusterName(s string) bool { return len(s) <= maxName && clusterName.MatchString(s) }

func (k checker) postgres(p *Postgres) {
	if k.present("postgres.nodes") && k.present("postgres.patroni") {
		k.refuse("postgres.patroni", "found nodes and patroni", "one of the two")
	}
	if k.isEmptyList("postgres.nodes", len(p.Nodes)) {
		k.refuse("postgres.nodes", "found an empty list", "at least one node")
	}
	first := map[string]int{}
	for i, n := range p.Nodes {
		field := fmt.Sprintf("postgres.nodes[%d]", i)
		if j, taken := first[n.Name]; taken && n.Name != "" {
			k.refuse(field+".name", fmt.Sprintf("found %s, the name of nodes[%d]", quote(n.Name), j), "a name of its own for each node")
		} else {
			first[n.Name] = i
		}
		k.connInfo(field+".conninfo", n.ConnInfo)
		k.url(field+".agent", n.Agent)
		k.absolute(field+".pgdata", n.PGData)
	}
	if p.Patroni == nil {
		return
	}
	if k.isEmptyList("postgres.patroni.urls", len(p.Patroni.URLs)) {
		k.refuse("postgres.patroni.urls", "found an empty list", "at least one URL")
	}
	for i, u := range p.Patroni.URLs {
		k.url(fmt.Sprintf("postgres.patroni.urls[%d]", i), u)
	}
	k.absolute("postgres.patroni.ca-file", p.Patroni.CAFile)
	k.between("postgres.patroni.agent-port", p.Patroni.AgentPort, 1, 65535)
	k.absolute("postgres.patroni.pgdata", p.Patroni.PGData)
	k.connInfo("postgres.patroni.conninfo", p.Patroni.ConnInfo)
}

func (k checker) repos(c *Config) {
	if k.isEmptyList("repos", len(c.Repos)) {
		k.refuse("repos", "found an empty list", "one to four repositories")
	}
	if len(c.Repos) > MaxRepos {
		k.refuse("repos[4]", fmt.Sprintf("found %d repositories", len(c.Repos)), "at most four")
	}
	if n := c.Archive.Require.Number(); n > len(c.Repos) && len(c.Repos) > 0 {
		k.refuse("archive.require", fmt.Sprintf("found %d, but there are %d repositories", n, len(c.Repos)),
			"all, or a number that is not larger than that of the repositories")
	}
	for i := range c.Repos {
		field := fmt.Sprintf("repos[%d]", i)
		k.repoName(c.Repos, i, field+".name")
		k.repo(&c.Repos[i], field)
	}
	k.samePlace(c)
}

func (k checker) repoName(repos []Repo, i int, field string) {
	name := repos[i].Name
	if !k.present(field) || name == "" {
		return
	}
	if !slices.Contains(RepoNames, name) {
		k.refuse(field, "found "+quote(name), strings.Join(RepoNames, ", "))
		return
	}
	for j := range repos[:i] {
		if repos[j].Name == name {
			k.refuse(field, fmt.Sprintf("found %s, the name of repos[%d]", quote(name), j), "a name of its own for each repository")
			return
		}
	}
}

// samePlace finds repositories that would write into one another.
func (k checker) samePlace(c *Config) {
	place := func(r Repo) (where, prefix string) {
		prefix = r.Prefix
		if prefix == "" {
			prefix = c.Cluster
		}
		switch {
		case r.S3 != nil:
			where = "s3 " + r.S3.Endpoint + " " + r.S3.Bucket
		case r.GCS != nil:
			where = "gcs " + r.GCS.Endpoint + " " + r.GCS.Bucket
		case r.Azure != nil:
			where = "azure " + r.Azure.Endpoint + " " + r.Azure.Account + " " + r.Azure.Container
		case r.Filesystem != nil:
			return "", filepath.Join(r.Filesystem.Path, prefix)
		}
		return where, prefix
	}
	within := func(a, b string) bool { return strings.HasPrefix(b+"/", a+"/") }
	for i, r := range c.Repos {
		if r.Kind() == "" {
			continue
		}
		where, prefix := place(r)
		for j, other := range c.Repos[:i] {
			w, p := place(other)
			if other.Kind() == r.Kind() && w == where && (within(p, prefix) || within(prefix, p)) {
				k.refuse(fmt.Sprintf("repos[%d].%s", i, r.Kind()), fmt.Sprintf("found the place of repos[%d]", j),
					"a place, or a prefix, of its own for each repository")
				break
			}
		}
	}
}

// refuse notes a problem at the value of field, or where that is missing, at
// the nearest thing around it.
func (k checker) refuse(field, found, expected string) {
	at, path := k.positions[field], field
	for at == nil && path != "" {
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
		at = k.positions[path]
	}
	k.problem(at, field, found, expected)
}

// present reports whether the file has a value for field.
func (k checker) present(field string) bool { return k.positions[field] != nil }

// isEmptyList leaves alone what was refused for not being a list.
func (k checker) isEmptyList(field string, n int) bool {
	return k.present(field) && n == 0 && !k.refused(k.positions[field])
}

func (k checker) refused(at *token.Position) bool {
	return slices.ContainsFunc(k.problems, func(p Problem) bool { return p.Line == at.Line && p.Column == at.Column })
}

func (k checker) between(field string, v, low, high int) {
	if at := k.positions[field]; at != nil && (v < low || v > high) && !k.refused(at) {
		k.refuse(field, fmt.Sprintf("found %d", v), fmt.Sprintf("a whole number from %d to %d", low, high))
	}
}

func (k checker) absolute(field, path string) {
	if path != "" && !filepath.IsAbs(path) {
		k.refuse(field, "found the relative path "+quote(path), "an absolute path: walkeep is started in many directories")
	}
}

// url checks an http or https URL that holds no password.
func (k checker) url(field, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		k.refuse(field, "found a user or password in the URL", "a URL without them")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		k.refuse(field, "found "+quote(s), "a URL that begins with https:// or http://")
	}
}
