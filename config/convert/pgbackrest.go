package convert

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/ini.v1"

	"github.com/walkeep/walkeep/config"
)

// maxInput is far above any honest input, in bytes.
const maxInput = 1 << 20

// Stanzas are the names of the stanzas of a pgbackrest.conf, sorted.
func Stanzas(data []byte) ([]string, error) {
	file, err := parseINI(data)
	if err != nil {
		return nil, err
	}
	return stanzas(file), nil
}

func stanzas(file *ini.File) []string {
	names := map[string]bool{}
	for _, s := range file.Sections() {
		name, _, _ := strings.Cut(s.Name(), ":")
		if name != "global" && name != ini.DefaultSection {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// FromPgBackRest converts a pgbackrest.conf: its global options and those of one
// stanza. stanza may be empty if there is one only.
func FromPgBackRest(data []byte, stanza string) (*Result, error) {
	file, err := parseINI(data)
	if err != nil {
		return nil, err
	}
	switch names := stanzas(file); {
	case stanza != "" && !slices.Contains(names, stanza):
		return nil, fmt.Errorf("%w: no stanza %q (there is %s)", ErrNothing, stanza, strings.Join(names, ", "))
	case stanza == "" && len(names) > 1:
		return nil, fmt.Errorf("%w: %d stanzas, %s: say which one; walkeep has a configuration for each cluster", ErrInput, len(names), strings.Join(names, ", "))
	case stanza == "" && len(names) == 1:
		stanza = names[0]
	case len(names) == 0:
		stanza = ""
	}
	r := &Result{Config: &config.Config{Cluster: stanza}}
	if stanza == "" {
		r.Config.Cluster = "main"
		r.note(NeedsYou, "", "cluster: there is no stanza; give the cluster a name")
	}
	o := options{}
	merge(o, file, "global")
	merge(o, file, stanza)
	r.commands(file, o, stanza)
	o = indexed(o)
	r.nodes(o)
	for _, name := range repoNames(o) {
		r.repository(o, config.Repo{Name: name})
	}
	if len(r.Config.Repos) == 0 && !r.Has(NeedsYou) {
		r.repository(o, config.Repo{Name: "repo1"}) // its default
	}
	r.global(o)
	r.note(NeedsYou, "", "schedules: pgBackRest is started by cron or timers; set repos.schedules")
	r.note(NeedsYou, "", "archive_command: change it on every node to walkeep-wal push, when walkeep check succeeds")
	return r, r.finish()
}

func parseINI(data []byte) (*ini.File, error) {
	if len(data) > maxInput {
		return nil, fmt.Errorf("%w: more than 1 MiB", ErrInput)
	}
	// As pgBackRest reads it: nothing is continued, quoted or replaced.
	file, err := ini.LoadSources(ini.LoadOptions{
		IgnoreInlineComment: true, IgnoreContinuation: true, PreserveSurroundedQuote: true, KeyValueDelimiters: "=",
		AllowShadows: true, SkipUnrecognizableLines: false,
	}, data)
	if err != nil {
		// The library's text quotes the line, which may hold a secret.
		return nil, fmt.Errorf("%w: not a pgbackrest.conf: a line is neither [section] nor option=value", ErrInput)
	}
	return file, nil
}

// merge adds the options of a section. Of an option that is given several times
// (they are lists) the last value is kept; none of them has a counterpart.
func merge(o options, file *ini.File, section string) {
	s, err := file.GetSection(section)
	if err != nil || section == "" {
		return
	}
	for _, k := range s.Keys() {
		values := k.ValueWithShadows()
		if len(values) > 0 {
			o[k.Name()] = values[len(values)-1]
		}
	}
}

// commands takes what is set for one command, where walkeep has it apart.
func (r *Result) commands(file *ini.File, o options, stanza string) {
	for _, s := range file.Sections() {
		name, command, ok := strings.Cut(s.Name(), ":")
		if !ok || name != "global" && name != stanza {
			continue
		}
		own := options{}
		merge(own, file, s.Name())
		if n := r.number(own, "process-max"); n > 0 {
			switch command {
			case "archive-push", "archive-get":
				r.Config.Archive.Workers = max(r.Config.Archive.Workers, min(n, 64))
			case "backup":
				o["process-max"] = strconv.Itoa(n)
			case "restore":
				r.Config.Restore.Workers = min(n, 64)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(own)) {
			if _, ok := o[key]; !ok && command != "restore" {
				o[key] = own[key] // the same everywhere
				continue
			}
			note, ok := explained[key]
			if !ok {
				note = Note{NoCounterpart, "", "walkeep has one setting for all commands"}
			}
			r.note(note.Kind, s.Name()+" "+key, "%s", note.Text)
		}
	}
}

var pgOption = regexp.MustCompile(`^(?:pg|db)([0-9]{0,3})-(.+)$`)

// nodes makes the servers from the options pgN-*.
func (r *Result) nodes(o options) {
	servers := map[int]options{}
	for name, v := range o {
		m := pgOption.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		n := 1
		if m[1] != "" {
			n, _ = strconv.Atoi(m[1]) // the pattern has digits only
		}
		if servers[n] == nil {
			servers[n] = options{}
		}
		servers[n][m[2]] = v
		delete(o, name)
	}
	for _, n := range slices.Sorted(maps.Keys(servers)) {
		s := servers[n]
		label := fmt.Sprintf("pg%d-", n)
		node := config.Node{Name: fmt.Sprintf("pg%d", n), PGData: r.file(prefixed(s, label, "path"), label+"path")}
		host, remote := s.take("host")
		var conn []string
		if remote {
			conn = append(conn, "host="+quoteConn(host))
		} else if v, ok := s.take("socket-path"); ok {
			conn = append(conn, "host="+quoteConn(v))
		} else {
			conn = append(conn, "host=/var/run/postgresql")
		}
		for from, to := range map[string]string{"port": "port", "user": "user", "database": "dbname"} {
			if v, ok := s.take(from); ok {
				conn = append(conn, to+"="+quoteConn(v))
			}
		}
		slices.Sort(conn[1:])
		node.ConnInfo = strings.Join(conn, " ")
		r.Config.Postgres.Nodes = append(r.Config.Postgres.Nodes, node)
		delete(s, "socket-path")
		delete(s, "path")
		for _, key := range slices.Sorted(maps.Keys(s)) {
			r.note(NoCounterpart, label+key, "an agent runs beside each server; there is no SSH, and its API is agent.listen")
		}
		if remote {
			r.note(NeedsYou, label+"host", "run walkeep agent there, and set its URL: postgres.nodes.agent")
		}
	}
	if len(servers) == 0 {
		r.note(NeedsYou, "", "postgres.nodes: no pg1-path is set; name the servers")
	}
}

// prefixed is one option under its full name, for messages.
func prefixed(o options, prefix, name string) options {
	return options{prefix + name: o[name]}
}

// quoteConn quotes a value for a libpq connection string.
func quoteConn(v string) string {
	if v != "" && !strings.ContainsAny(v, ` '\`) {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}
