package cloud

import (
	"fmt"
	"net/url"
	"strings"
)

// Endpoint parses "host", "host:port" (both https) or a URL with http or https.
func Endpoint(s string) (*url.URL, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "https://" + s
	}
	u, err := url.Parse(full)
	switch {
	case err != nil:
		return nil, fmt.Errorf("endpoint %q: %w", s, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("endpoint %q: the scheme must be http or https", s)
	case u.Hostname() == "":
		return nil, fmt.Errorf("endpoint %q: no host", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %q: only scheme, host, port and path are allowed", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}
