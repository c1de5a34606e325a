// Package conf reads a setting of a server from its files, for programs that
// run where nobody can connect: a server in recovery has no connections at
// first. What the server does with the files is in guc-file.l, postmaster.c and
// guc.c (ProcessConfigFile, CreateOptsFile, ParseLongOption); a setting that was
// changed in a file and is not in use before a reload is seen too early.
package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDepth is how deep the server lets files include each other
// (guc-file.l, CONF_FILE_MAX_DEPTH).
const maxDepth = 10

// maxFile bounds a file that is read, bytes.
const maxFile = 16 << 20

// Lookup is a setting of the server of a data directory: as its command line
// says (postmaster.opts), else postgresql.auto.conf, else postgresql.conf with
// what that includes. set is false if none of them has it. An error leaves it
// open: a file that cannot be read may have it.
func Lookup(pgdata, name string) (value string, set bool, err error) {
	options, err := commandLine(pgdata)
	if err != nil {
		return "", false, err
	}
	if value, set = options[name]; set {
		return value, true, nil
	}
	file := options["config_file"]
	switch {
	case file == "":
		file = filepath.Join(pgdata, "postgresql.conf")
	case !filepath.IsAbs(file):
		return "", false, fmt.Errorf("the server was started with config_file=%s, relative to an unknown directory", file)
	}
	r := reader{name: name}
	if err := r.file(file, 0); err != nil {
		return "", false, err
	}
	// It is read last, and there may be none.
	if err := r.file(filepath.Join(pgdata, "postgresql.auto.conf"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	return r.value, r.set, nil
}

// commandLine are the settings of the command line that the server was last
// started with, by name in lower case. None if it never was.
func commandLine(pgdata string) (map[string]string, error) {
	b, err := read(filepath.Join(pgdata, "postmaster.opts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	words := strings.Split(strings.TrimSpace(string(b)), ` "`)[1:]
	options := map[string]string{}
	for i := 0; i < len(words); i++ {
		w, ok := strings.CutSuffix(words[i], `"`)
		if !ok || strings.Contains(w, `"`) {
			return nil, fmt.Errorf("read %s/postmaster.opts: quotes in an argument", pgdata)
		}
		text, long := strings.CutPrefix(w, "--")
		if !long {
			if text, ok = strings.CutPrefix(w, "-c"); !ok {
				continue
			}
			if text == "" && i+1 < len(words) {
				i++
				text = strings.TrimSuffix(words[i], `"`)
			}
		}
		if name, value, ok := strings.Cut(text, "="); ok {
			options[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
		}
	}
	return options, nil
}

// reader looks for one setting. The last one that it meets counts.
type reader struct {
	name  string
	value string
	set   bool
}

func (r *reader) file(path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("read %s: files include each other more than %d deep", path, maxDepth)
	}
	b, err := read(path)
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		name, value, err := parseLine(line)
		if err == nil {
			err = r.take(path, name, value, depth)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return nil
}

func (r *reader) take(path, name, value string, depth int) error {
	// Relative to the file that has the line.
	where := value
	if !filepath.IsAbs(where) {
		where = filepath.Join(filepath.Dir(path), where)
	}
	switch name {
	case "include":
		return r.file(where, depth+1)
	case "include_if_exists":
		if err := r.file(where, depth+1); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	case "include_dir":
		entries, err := os.ReadDir(where)
		if err != nil {
			return err
		}
		for _, e := range entries { // in the order of their names, as bytes
			if strings.HasSuffix(e.Name(), ".conf") && !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
				if err := r.file(filepath.Join(where, e.Name()), depth+1); err != nil {
					return err
				}
			}
		}
	case r.name:
		r.value, r.set = value, true
	}
	return nil
}

// parseLine reads a line: a name, in lower case here, and a value. name is "" for
// an empty line or a comment.
func parseLine(line string) (name, value string, err error) {
	const space = " \t\r\n\f\v"
	line = strings.Trim(line, space)
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	end := strings.IndexAny(line, space+"=#'")
	if end <= 0 {
		return "", "", errors.New("not a setting")
	}
	name, rest := strings.ToLower(line[:end]), strings.TrimLeft(line[end:], space)
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), space)
	if strings.HasPrefix(rest, "'") {
		value, rest, err = unquote(rest[1:])
		if err != nil {
			return "", "", err
		}
	} else {
		end := strings.IndexAny(rest, space+"#")
		if end < 0 {
			end = len(rest)
		}
		value, rest = rest[:end], rest[end:]
	}
	if rest = strings.TrimLeft(rest, space); rest != "" && rest[0] != '#' {
		return "", "", errors.New("more than a value")
	}
	return name, value, nil
}

// unquote reads a quoted value behind its first quote, as DeescapeQuotedString
// does: two quotes are one, and a backslash escapes.
func unquote(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
			b.WriteByte('\'')
		case c == '\'':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			n, used := escaped(s[i:])
			b.WriteByte(n)
			i += used - 1
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quoted value does not end")
}

// escaped is the byte that what follows a backslash stands for, and how many
// bytes that is.
func escaped(s string) (b byte, used int) {
	if at := strings.IndexByte("bfnrt", s[0]); at >= 0 {
		return "\b\f\n\r\t"[at], 1
	}
	v := 0
	for used < 3 && used < len(s) && s[used] >= '0' && s[used] <= '7' {
		v = v<<3 | int(s[used]-'0')
		used++
	}
	if used == 0 {
		return s[0], 1
	}
	return byte(v), used
}

// read reads a regular file of reasonable size: these are at places that others
// may write to.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("read %s: not a configuration file", path)
	}
	b, err := os.ReadFile(path)
	if err == nil && slices.Contains(b, 0) {
		err = fmt.Errorf("read %s: not a text", path)
	}
	return b, err
}
