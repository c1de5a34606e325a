package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/walkeep/walkeep/integration/ports"
	"github.com/walkeep/walkeep/integration/stores"
)

// Cluster is an API server and its etcd.
type Cluster struct {
	t      *testing.T
	URL    string
	CAFile string
	dir    string
	etcd   *process
	server *process
	admin  string // its token
	api    dynamic.Interface
	said   *warnings
}

const (
	// startTime bounds the start, on a machine that is busy.
	startTime = 3 * time.Minute
	// starts is how often it is tried: between choosing a port and listening on it
	// somebody else may have taken it.
	starts = 3
)

// Start starts a cluster that lives as long as the test.
func Start(t *testing.T) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), admin: rand.Text(), said: &warnings{}}
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Logf("end of the log of kube-apiserver:\n%s", tail(filepath.Join(c.dir, "kube-apiserver.log"), 20))
		}
	})
	require.NoError(t, stores.MakeCertificates(c.dir))
	c.CAFile = filepath.Join(c.dir, "ca.pem")
	require.NoError(t, c.secrets())
	var err error
	for range starts {
		if err = c.start(t.Context()); err == nil {
			break
		}
		c.Stop()
	}
	require.NoError(t, err)
	c.api, err = dynamic.NewForConfig(&rest.Config{
		Host: c.URL, BearerToken: c.admin, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile}, QPS: -1, WarningHandler: c.said,
	})
	require.NoError(t, err)
	return c
}

// secrets makes the key of service accounts, and the token of the administrator.
func (c *Cluster) secrets() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	write := func(name string, b []byte) error { return os.WriteFile(filepath.Join(c.dir, name), b, 0o600) }
	return errors.Join(
		write("sa.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		write("sa.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		write("tokens", []byte(c.admin+`,admin,admin,"system:masters"`+"\n")),
	)
}

func (c *Cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client, peer, server := ports.For(c.t), ports.For(c.t), ports.For(c.t)
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		return fmt.Errorf("%w: run make tools", err)
	}
	clientURL, peerURL := "http://"+client.Address(), "http://"+peer.Address()
	data, err := os.MkdirTemp(c.dir, "etcd")
	if err != nil {
		return err
	}
	c.etcd, err = run(filepath.Join(c.dir, "etcd.log"), etcd, "--data-dir", data, "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", clientURL, "--advertise-client-urls", clientURL,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "default="+peerURL,
		// The disk of a busy machine may take its time.
		"--heartbeat-interval", "500", "--election-timeout", "5000")
	if err != nil {
		return err
	}
	if err := c.await(ctx, c.etcd, clientURL+"/health", http.DefaultClient); err != nil {
		return err
	}
	return c.startServer(ctx, clientURL, server.String())
}

func (c *Cluster) startServer(ctx context.Context, etcdURL, port string) error {
	program, err := stores.Locate("kube-apiserver")
	if err != nil {
		return err
	}
	c.URL = "https://127.0.0.1:" + port
	in := func(name string) string { return filepath.Join(c.dir, name) }
	c.server, err = run(in("kube-apiserver.log"), program,
		"--etcd-servers="+etcdURL,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--tls-cert-file="+in("cert.pem"), "--tls-private-key-file="+in("key.pem"), "--cert-dir="+in("certs"),
		"--authorization-mode=RBAC", "--token-auth-file="+in("tokens"), "--anonymous-auth=false",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+in("sa.pub"), "--service-account-signing-key-file="+in("sa.key"),
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none",
	)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(&rest.Config{BearerToken: c.admin, TLSClientConfig: rest.TLSClientConfig{CAData: ca}, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return c.await(ctx, c.server, c.URL+"/readyz", client)
}

// await returns when a server says that it works.
func (c *Cluster) await(ctx context.Context, p *process, url string, client *http.Client) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended; its log:\n%s", p.cmd.Path, tail(p.log, 40))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; its log:\n%s", url, err, tail(p.log, 40))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends both servers. It may be called twice.
func (c *Cluster) Stop() {
	c.server.kill()
	c.etcd.kill()
}

// StopServer kills the API server.
func (c *Cluster) StopServer() { c.server.kill() }

// SilenceServer makes the API server take connections and answer nothing, until
// WakeServer.
func (c *Cluster) SilenceServer() { c.server.signal(syscall.SIGSTOP) }

// WakeServer lets it answer again.
func (c *Cluster) WakeServer() { c.server.signal(syscall.SIGCONT) }

// Kubeconfig writes a file that whoever has a token uses.
func (c *Cluster) Kubeconfig(t *testing.T, dir, namespace, token string) string {
	t.Helper()
	ca, err := os.ReadFile(c.CAFile)
	require.NoError(t, err)
	path, copied := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "kube-ca.pem")
	require.NoError(t, os.WriteFile(copied, ca, 0o644))
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: %q, certificate-authority: %s}}]
contexts: [{name: test, context: {cluster: test, user: test, namespace: %s}}]
users: [{name: test, user: {token: %q}}]
`, c.URL, copied, namespace, token), 0o600))
	return path
}

// Resource speaks as the administrator about a kind of objects.
func (c *Cluster) Resource(group, version, resource string) dynamic.NamespaceableResourceInterface {
	return c.api.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource})
}

// tail is the end of a log.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
