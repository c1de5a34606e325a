package config

import (
	"errors"
	"net/url"
	"strings"
)

// connInfo checks the form of a libpq connection string or URI, and that it
// holds no password. The value is never shown: it may hold one.
func (k checker) connInfo(field, s string) {
	if s == "" {
		return
	}
	settings, err := parseConnInfo(s)
	if err != nil {
		k.refuse(field, "found a connection string that cannot be read: "+err.Error(), `keywords and values ("host=pg-0 user=walkeep"), or a URI (postgresql://walkeep@pg-0/postgres)`)
		return
	}
	for _, secret := range []string{"password", "sslpassword"} {
		if settings[secret] != "" {
			k.refuse(field, "found a secret ("+secret+") in the configuration", "none: name a password file with passfile=, or use ~/.pgpass")
		}
	}
}

// parseConnInfo splits a connection string into its settings, as libpq's
// conninfo_parse and conninfo_uri_parse do.
func parseConnInfo(s string) (map[string]string, error) {
	if strings.HasPrefix(s, "postgresql://") || strings.HasPrefix(s, "postgres://") {
		return parseConnURI(s)
	}
	settings := map[string]string{}
	const space = " \t\n\r\f\v"
	for s = strings.TrimLeft(s, space); s != ""; s = strings.TrimLeft(s, space) {
		name, rest, ok := strings.Cut(s, "=")
		if name = strings.TrimRight(name, space); !ok || name == "" || strings.ContainsAny(name, space) {
			return nil, errors.New(`missing "=" after a keyword`)
		}
		value, after, err := connValue(strings.TrimLeft(rest, space))
		if err != nil {
			return nil, err
		}
		settings[name], s = value, after
	}
	return settings, nil
}

// connValue reads one value, plain or in single quotes, with backslashes.
func connValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	i := 0
	if quoted {
		i = 1
	}
	var b strings.Builder
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\n\r\f\v", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errors.New("a quote is not closed")
	}
	return b.String(), "", nil
}

func parseConnURI(s string) (map[string]string, error) {
	_, rest, _ := strings.Cut(s, "://")
	authority, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("its parameters are malformed")
	}
	settings := map[string]string{}
	for name := range values {
		settings[name] = values.Get(name)
	}
	// Not url.Parse: libpq allows several hosts with ports.
	authority, _, _ = strings.Cut(authority, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, password, _ := strings.Cut(authority[:i], ":")
		settings["user"] = user
		if password != "" {
			settings["password"] = password
		}
	}
	return settings, nil
}
