package main

import (
	"net/http"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/metrics"
	"github.com/walkeep/walkeep/api/page"
	"github.com/walkeep/walkeep/api/rest"
	"github.com/walkeep/walkeep/config"
)

// serviceAPI begins to listen, if the configuration wants it; nil if not. The
// reviewer, if there is one, knows tokens besides.
func (r *root) serviceAPI(cfg *config.Config, s api.Service, reviewer api.Authenticator) (*rest.Server, error) {
	c := cfg.Service
	if c.Listen == "" {
		return nil, nil
	}
	who, err := r.serviceAuthenticators(c)
	if reviewer != nil {
		who = append(who, reviewer)
	}
	if err != nil {
		return nil, err
	}
	may := func(q *http.Request) bool { return api.IdentityOf(q.Context()).Role >= api.Viewer }
	start, err := page.New(page.Options{Service: s, Viewer: may, Log: r.logger()})
	if err != nil {
		return nil, err
	}
	numbers, err := metrics.Handler(s, nil)
	if err != nil {
		return nil, err
	}
	handler, err := rest.New(rest.Options{
		Service: s, Version: thisVersion().Version, Authenticators: who, Rate: c.RateLimit, Streams: c.Streams, Log: r.logger(),
		Mounts: []rest.Mount{
			{Pattern: "/", Handler: start, Role: api.Nobody}, // it looks itself who may see what
			{Pattern: "GET /metrics", Handler: numbers, Role: api.Viewer},
		},
	})
	if err != nil {
		return nil, err
	}
	return rest.NewServer(rest.ServerOptions{
		Listen: c.Listen, Handler: r.traces.Handler(handler), CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ClientCAFile: c.TLS.ClientCAFile, Log: r.logger(),
	})
}

func (r *root) serviceAuthenticators(c config.Service) (who []api.Authenticator, err error) {
	for _, t := range []struct {
		file string
		role api.Role
	}{{c.OperatorTokenFile, api.Operator}, {c.ViewerTokenFile, api.Viewer}} {
		if t.file == "" {
			continue
		}
		tokens, err := rest.NewTokens(t.file, t.role, r.logger())
		if err != nil {
			return nil, err
		}
		who = append(who, tokens)
	}
	if len(c.OperatorClients)+len(c.ViewerClients) > 0 {
		who = append(who, rest.Certificates{Operators: c.OperatorClients, Viewers: c.ViewerClients})
	}
	if c.AnonymousViewer {
		who = append(who, rest.Anonymous{})
	}
	return who, nil
}
