package gcs

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// authenticate returns base with credentials added to every request.
func authenticate(opts Options, base *cloud.Transport) (http.RoundTripper, error) {
	if opts.NoAuth {
		return base, nil
	}
	s := &signer{opts: opts, base: base}
	if opts.CredentialsFile != "" {
		// Reads only a file, so it can fail early.
		if _, err := s.signed(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// signer finds the credentials when the first request needs them: the default
// chain may ask the network whether it runs on a machine of Google's.
type signer struct {
	opts Options
	base *cloud.Transport

	mu   sync.Mutex        // guards next
	next http.RoundTripper // nil until credentials were found
}

// RoundTrip implements http.RoundTripper.
func (s *signer) RoundTrip(r *http.Request) (*http.Response, error) {
	next, err := s.signed()
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return next.RoundTrip(r)
}

func (s *signer) signed() (http.RoundTripper, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		return s.next, nil
	}
	detect := &credentials.DetectOptions{
		Scopes: []string{storage.ScopeReadWrite},
		Client: &http.Client{Transport: s.base},
	}
	if s.opts.CredentialsFile != "" {
		// The configuration file is the administrator's, who may name any kind
		// of key in it.
		json, err := os.ReadFile(s.opts.CredentialsFile)
		if err != nil {
			return nil, fmt.Errorf("credentials file: %w", err)
		}
		//lint:ignore SA1019 deprecated for files of others; see above
		detect.CredentialsJSON = json
	}
	found, err := credentials.DetectDefault(detect)
	if err != nil {
		return nil, object.Permanent(fmt.Errorf("find Google credentials: %w", err))
	}
	// The transport outlives any request, so it takes no request's context.
	s.next, err = htransport.NewTransport(context.Background(), s.base, option.WithAuthCredentials(found))
	return s.next, err
}
