package stores

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"

	"github.com/walkeep/walkeep/repo/object/gcs"
)

// GCS is a fake-gcs-server that keeps everything in memory.
type GCS struct {
	*Server
}

// StartGCS starts one.
func StartGCS(ctx context.Context, o Options) (*GCS, error) {
	binary, err := Locate("fake-gcs-server")
	if err != nil {
		return nil, err
	}
	server, err := start(ctx, program{
		name: "fake-gcs-server",
		command: func(s *Server, port string) *exec.Cmd {
			args := []string{
				"-host", "127.0.0.1", "-port", port, "-public-host", "127.0.0.1:" + port,
				"-backend", "memory", "-log-level", "warn", "-scheme", "http",
			}
			if o.TLS {
				args[len(args)-1] = "https"
				args = append(args, "-cert-location", s.certFile(), "-private-key-location", s.keyFile())
			}
			return exec.Command(binary, args...)
		},
		path:  "/_internal/healthcheck",
		ready: func(resp *http.Response) bool { return resp.StatusCode == http.StatusOK },
	}, o)
	if err != nil {
		return nil, err
	}
	return &GCS{server}, nil
}

// Bucket makes an empty bucket.
func (s *GCS) Bucket(ctx context.Context) (string, error) {
	name := "walkeep-" + random(6)
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/storage/v1/b?project=walkeep", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("create bucket %s: %s", name, resp.Status)
	}
	return name, nil
}

// Options are those of a driver for a bucket of this server.
func (s *GCS) Options(bucket string) gcs.Options {
	return gcs.Options{Bucket: bucket, Endpoint: s.URL, NoAuth: true, CAFile: s.CAFile}
}
