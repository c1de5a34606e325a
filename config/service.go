package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"
)

// Service is `walkeep serve`.
type Service struct {
	// Listen is the host and port of the REST API, the web page and metrics. It
	// needs tokens or clients, and tls where others than this machine can connect.
	// Default: none.
	Listen string `yaml:"listen,omitempty"`
	// TLS has the certificate; it can be left out where only this machine can
	// connect. Clients' certificates are asked for with client-ca-file.
	TLS TLS `yaml:"tls,omitempty"`
	// OperatorTokenFile has the bearer tokens that may do everything, one a line,
	// of 16 characters or more; an absolute path.
	OperatorTokenFile string `yaml:"operator-token-file,omitempty"`
	// ViewerTokenFile has the bearer tokens that may look and change nothing.
	ViewerTokenFile string `yaml:"viewer-token-file,omitempty"`
	// OperatorClients are the common names of clients' certificates that may do
	// everything; "*" is every certificate of client-ca-file.
	OperatorClients []string `yaml:"operator-clients,omitempty"`
	// ViewerClients are those that may look and change nothing.
	ViewerClients []string `yaml:"viewer-clients,omitempty"`
	// Kubernetes is what is asked of the API server, inside a Kubernetes cluster.
	// Default: nothing.
	Kubernetes *Kubernetes `yaml:"kubernetes,omitempty"`
	// AnonymousViewer lets everybody look who can connect; only where that is
	// this machine alone. Default false.
	AnonymousViewer bool `yaml:"anonymous-viewer,omitempty"`
	// RateLimit is how many requests a second one client may send, 1 to 10000;
	// five seconds' worth of them may come at once. Default 200.
	RateLimit int `yaml:"rate-limit,omitempty" jsonschema:"minimum=1,maximum=10000"`
	// Streams is how many clients may follow runs at a time, 1 to 10000. Default
	// 500.
	Streams int `yaml:"streams,omitempty" jsonschema:"minimum=1,maximum=10000"`
	// Interval is how often repositories are looked at without an occasion, 1s
	// to 1h. Default 30s.
	Interval Duration `yaml:"interval,omitempty"`
	// Probe is how often servers and agents are asked how they are, 1s to 5m.
	// Default 5s.
	Probe Duration `yaml:"probe,omitempty"`
	// Lease is how long after its last sign of life the leader is replaced by
	// another service, 2s to 10m. It gives a sign four times as often. Default 12s.
	Lease Duration `yaml:"lease,omitempty"`
	// Jitter delays each scheduled run by up to this much. Default none.
	Jitter Duration `yaml:"jitter,omitempty"`
	// Attempts is how often a failing run is tried, 1 to 100. Default 3.
	Attempts int `yaml:"attempts,omitempty" jsonschema:"minimum=1,maximum=100"`
	// Backoff is the pause before the second attempt, 1s to 1h; it doubles, up to
	// an hour. Default 1m.
	Backoff Duration `yaml:"backoff,omitempty"`
	// VerifyLevel is how thorough scheduled verification is: exists, stored (the
	// default) or full.
	VerifyLevel VerifyLevel `yaml:"verify-level,omitempty"`
	// Traces is the URL of an OpenTelemetry collector that service and agents send
	// traces to, by OTLP over HTTP. Default: as the environment variable
	// OTEL_EXPORTER_OTLP_ENDPOINT says, else none are made.
	Traces string `yaml:"traces,omitempty"`
}

// VerifyLevel is a level of verification.
type VerifyLevel string

// The values of verify-level.
const (
	VerifyExists VerifyLevel = "exists"
	VerifyStored VerifyLevel = "stored"
	VerifyFull   VerifyLevel = "full"
)

// Loopback reports whether only this machine can connect to listen (host:port).
func Loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

const maxPerClient = 10000

func (k checker) service(s *Service) {
	for field, path := range map[string]string{
		"service.tls.cert-file": s.TLS.CertFile, "service.tls.key-file": s.TLS.KeyFile,
		"service.tls.client-ca-file":  s.TLS.ClientCAFile,
		"service.operator-token-file": s.OperatorTokenFile, "service.viewer-token-file": s.ViewerTokenFile,
	} {
		k.absolute(field, path)
	}
	if (s.TLS.CertFile == "") != (s.TLS.KeyFile == "") {
		k.refuse("service.tls", "found one of cert-file and key-file", "both, or none")
	}
	if s.TLS.ClientCAFile != "" && s.TLS.CertFile == "" {
		k.refuse("service.tls.client-ca-file", "found no certificate of the service", "cert-file and key-file with it")
	}
	if s.TLS.CAFile != "" {
		k.refuse("service.tls.ca-file", "found authorities of agents", "them under agent.tls.ca-file, or client-ca-file")
	}
	k.between("service.rate-limit", s.RateLimit, 1, maxPerClient)
	k.between("service.streams", s.Streams, 1, maxPerClient)
	k.within("service.interval", s.Interval, time.Second, time.Hour)
	k.within("service.probe", s.Probe, time.Second, 5*time.Minute)
	k.within("service.lease", s.Lease, 2*time.Second, 10*time.Minute)
	k.within("service.backoff", s.Backoff, time.Second, time.Hour)
	k.between("service.attempts", s.Attempts, 1, 100)
	k.clients("service.operator-clients", s.OperatorClients, s)
	k.clients("service.viewer-clients", s.ViewerClients, s)
	k.kubernetes(s.Kubernetes)
	if s.Traces != "" {
		if u, err := url.Parse(s.Traces); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			k.refuse("service.traces", "found no URL, or one with a password", "http://HOST:PORT or https://HOST:PORT")
		}
	}
	if s.Listen != "" {
		k.serviceListen(s)
	}
}

func (k checker) within(field string, v Duration, low, high time.Duration) {
	if at := k.positions[field]; at != nil && (time.Duration(v) < low || time.Duration(v) > high) && !k.refused(at) {
		k.refuse(field, "found "+time.Duration(v).String(), fmt.Sprintf("a duration from %s to %s", low, high))
	}
}

func (k checker) clients(field string, names []string, s *Service) {
	if k.isEmptyList(field, len(names)) {
		k.refuse(field, "found an empty list", `common names of certificates, or "*"`)
	}
	if len(names) > 0 && s.TLS.ClientCAFile == "" {
		k.refuse(field, "found nothing to check certificates with", "service.tls.client-ca-file with it")
	}
}

func (k checker) serviceListen(s *Service) {
	const field = "service.listen"
	if _, port, err := net.SplitHostPort(s.Listen); err != nil || port == "" {
		k.refuse(field, "found "+quote(s.Listen), `a host and a port, such as "10.0.0.5:8443", ":8443" or "127.0.0.1:8080"`)
		return
	}
	known := s.OperatorTokenFile != "" || s.ViewerTokenFile != "" || len(s.OperatorClients)+len(s.ViewerClients) > 0 ||
		s.Kubernetes != nil && s.Kubernetes.Reviews()
	if !known && !s.AnonymousViewer {
		k.refuse(field, "found nothing that tells who may use it",
			"service.operator-token-file, viewer-token-file, operator-clients, viewer-clients or kubernetes, or anonymous-viewer")
	}
	if Loopback(s.Listen) {
		return
	}
	if s.TLS.CertFile == "" {
		k.refuse(field, "found no certificate for it", "service.tls.cert-file and key-file, or an address of this machine only")
	}
	if s.AnonymousViewer {
		k.refuse("service.anonymous-viewer", "found true with an address that others can reach",
			"an address of this machine only, such as 127.0.0.1:8080; or tokens")
	}
}
