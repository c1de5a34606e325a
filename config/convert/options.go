package convert

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/walkeep/walkeep/config"
)

// options are settings of pgBackRest by name, as they stand in a file. What was
// taken is no longer in it.
type options map[string]string

func (o options) take(name string) (string, bool) {
	v, ok := o[name]
	delete(o, name)
	return v, ok && v != ""
}

// number takes a whole number above zero.
func (r *Result) number(o options, name string) int {
	v, ok := o.take(name)
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 9999999 {
		r.note(NeedsYou, name, "%q is not a number above zero; left out", v)
		return 0
	}
	return n
}

// file takes the path of a file.
func (r *Result) file(o options, name string) string {
	v, ok := o.take(name)
	if !ok {
		return ""
	}
	if !strings.HasPrefix(v, "/") {
		r.note(NeedsYou, name, "%q is not an absolute path; left out", v)
		return ""
	}
	return v
}

// repoOption is an option of a repository: repo1-path.
var repoOption = regexp.MustCompile(`^repo([0-9]{1,3})-(.+)$`)

// indexed gives the names that older versions knew their number: repo-path, and
// retention-full.
func indexed(o options) options {
	out := options{}
	for name, v := range o {
		if rest, ok := strings.CutPrefix(name, "repo-"); ok {
			name = "repo1-" + rest
		} else if strings.HasPrefix(name, "retention-") {
			name = "repo1-" + name
		}
		if name == "repo1-retention-archive-type" || name == "repo1-retention-full-type" || out[name] == "" {
			out[name] = v
		}
	}
	return out
}

// repoNames are the repositories that have options, by number.
func repoNames(o options) []string {
	numbers := map[int]bool{}
	for name := range o {
		if m := repoOption.FindStringSubmatch(name); m != nil {
			n, _ := strconv.Atoi(m[1]) // the pattern has digits only
			numbers[n] = true
		}
	}
	var names []string
	for _, n := range slices.Sorted(maps.Keys(numbers)) {
		names = append(names, fmt.Sprintf("repo%d", n))
	}
	return names
}

// repository makes a repository from its options. start has what is known of it
// from elsewhere.
func (r *Result) repository(o options, start config.Repo) {
	c := start
	prefix := c.Name + "-"
	if n, err := strconv.Atoi(strings.TrimPrefix(c.Name, "repo")); err != nil || n < 1 || n > config.MaxRepos {
		r.note(NoCounterpart, c.Name, "walkeep has repo1 to repo%d", config.MaxRepos)
		for name := range o {
			if strings.HasPrefix(name, prefix) {
				delete(o, name)
			}
		}
		return
	}
	path, _ := o.take(prefix + "path")
	kind, _ := o.take(prefix + "type")
	switch {
	case c.Kind() != "":
	case kind == "s3":
		c.S3 = &config.S3{}
	case kind == "gcs":
		c.GCS = &config.GCS{}
	case kind == "azure":
		c.Azure = &config.Azure{}
	case kind == "" || kind == "posix" || kind == "cifs":
		if _, remote := o[prefix+"host"]; !remote && path == "" {
			path = "/var/lib/pgbackrest" // its default
		}
		c.Filesystem = &config.Filesystem{}
	default:
		r.note(NeedsYou, prefix+"type", "walkeep has no store of type %q; the repository is left out", kind)
		r.rest(o, prefix)
		return
	}
	c.Prefix = "walkeep/" + r.Config.Cluster
	switch {
	case c.S3 != nil:
		r.s3(o, prefix, c.S3)
	case c.GCS != nil:
		r.gcs(o, prefix, c.GCS)
	case c.Azure != nil:
		r.azure(o, prefix, c.Azure)
	case c.Filesystem.Path == "":
		c.Filesystem.Path = path
		path = ""
		if c.Filesystem.Path == "" {
			c.Filesystem.Path = "/path/to/backups"
			r.note(NeedsYou, prefix+"path", "fill in repos.%s.filesystem.path: a directory that all nodes share", c.Name)
		}
	default:
		path = "" // the volume is mounted for the repository alone
	}
	if p := strings.Trim(path, "/"); p != "" {
		c.Prefix = p + "/" + c.Prefix
	}
	r.retention(o, prefix, &c.Retention)
	if _, ok := o.take(prefix + "cipher-pass"); ok || o[prefix+"cipher-type"] != "" && o[prefix+"cipher-type"] != "none" {
		r.note(NeedsYou, prefix+"cipher-type", "encryption is with age: make a key pair with age-keygen, and set repos.%s.encryption.recipients", c.Name)
	}
	delete(o, prefix+"cipher-type")
	r.Config.Repos = append(r.Config.Repos, c)
}

func (r *Result) s3(o options, prefix string, s *config.S3) {
	fill(&s.Bucket, o, prefix+"s3-bucket")
	fill(&s.Endpoint, o, prefix+"s3-endpoint")
	fill(&s.Region, o, prefix+"s3-region")
	r.host(o, prefix, &s.Endpoint)
	if v, _ := o.take(prefix + "s3-uri-style"); v == "path" {
		s.PathStyle = true
	}
	s.CAFile = r.file(o, prefix+"storage-ca-file")
	keyType, _ := o.take(prefix + "s3-key-type")
	_, key := o.take(prefix + "s3-key")
	_, secret := o.take(prefix + "s3-key-secret")
	_, token := o.take(prefix + "s3-token")
	switch {
	case keyType == "auto" || keyType == "web-id" || keyType == "pod-id":
		r.note(NotNeeded, prefix+"s3-key-type", "the SDK finds the credentials of the machine or service account itself")
	case key || secret || token || keyType == "shared":
		r.note(NeedsYou, prefix+"s3-key", "put the key into files, and name them: access-key-id-file, secret-access-key-file")
	}
}

func (r *Result) gcs(o options, prefix string, g *config.GCS) {
	fill(&g.Bucket, o, prefix+"gcs-bucket")
	if v, ok := o.take(prefix + "gcs-endpoint"); ok && v != "storage.googleapis.com" {
		g.Endpoint = v
	}
	r.host(o, prefix, &g.Endpoint)
	g.CAFile = r.file(o, prefix+"storage-ca-file")
	switch keyType, _ := o.take(prefix + "gcs-key-type"); keyType {
	case "", "service":
		g.CredentialsFile = r.file(o, prefix+"gcs-key")
	case "auto":
		r.note(NotNeeded, prefix+"gcs-key-type", "the SDK finds the credentials of the machine or service account itself")
	default:
		r.note(NoCounterpart, prefix+"gcs-key-type", "walkeep takes a service account's key as a file, or what the SDK finds")
	}
	delete(o, prefix+"gcs-key")
}

func (r *Result) azure(o options, prefix string, a *config.Azure) {
	fill(&a.Container, o, prefix+"azure-container")
	fill(&a.Account, o, prefix+"azure-account")
	if a.Account == "" {
		a.Account = "ACCOUNT"
		r.note(NeedsYou, prefix+"azure-account", "fill in the name of the storage account")
	}
	if v, ok := o.take(prefix + "azure-endpoint"); ok && v != "blob.core.windows.net" {
		r.note(NeedsYou, prefix+"azure-endpoint", "set azure.endpoint to the URL of the account, for example https://%s.%s", a.Account, v)
	}
	r.host(o, prefix, &a.Endpoint)
	a.CAFile = r.file(o, prefix+"storage-ca-file")
	keyType, _ := o.take(prefix + "azure-key-type")
	_, key := o.take(prefix + "azure-key")
	switch {
	case keyType == "auto":
		r.note(NotNeeded, prefix+"azure-key-type", "the SDK finds the managed identity itself")
	case keyType == "sas":
		r.note(NeedsYou, prefix+"azure-key", "put the shared access signature into a file, and name it: sas-token-file")
	case key || keyType == "shared":
		r.note(NeedsYou, prefix+"azure-key", "put the key into a file, and name it: account-key-file")
	}
	delete(o, prefix+"azure-uri-style")
}

// host is an address to connect to instead of the endpoint.
func (r *Result) host(o options, prefix string, endpoint *string) {
	host, ok := o.take(prefix + "storage-host")
	port, some := o.take(prefix + "storage-port")
	if !ok && some && *endpoint != "" {
		host, ok = *endpoint, true
	}
	if !ok {
		return
	}
	*endpoint = strings.TrimSuffix(host, "/")
	if some && port != "443" {
		*endpoint += ":" + port
	}
}

func fill(field *string, o options, name string) {
	if v, ok := o.take(name); ok && *field == "" {
		*field = v
	}
}

func (r *Result) retention(o options, prefix string, c *config.Retention) {
	c.Full = r.number(o, prefix+"retention-full")
	switch v, ok := o.take(prefix + "retention-full-type"); {
	case !ok || v == "count" || c.Full == 0:
	case v == "time":
		c.FullType = config.RetainTime
	default:
		r.note(NeedsYou, prefix+"retention-full-type", "%q is neither count nor time; left out", v)
	}
	c.Differential = r.number(o, prefix+"retention-diff")
	c.WAL = r.number(o, prefix+"retention-archive")
	types := map[string]config.WALRetentionType{"full": config.WALOfFull, "diff": config.WALOfDifferential, "incr": config.WALOfIncremental}
	if v, ok := o.take(prefix + "retention-archive-type"); ok && c.WAL > 0 {
		if c.WALType = types[v]; c.WALType == "" {
			r.note(NeedsYou, prefix+"retention-archive-type", "%q is none of full, diff and incr; left out", v)
		}
	}
	if c.Full == 0 {
		r.note(NeedsYou, prefix+"retention-full", "not set: nothing expires in %s; set repos.%s.retention", strings.TrimSuffix(prefix, "-"), strings.TrimSuffix(prefix, "-"))
	}
}
