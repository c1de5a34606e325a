package patroni

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/walkeep/walkeep/integration/stores"
)

// etcdURL is where etcd listens on the hub.
const etcdURL = "http://" + hubIP + ":2379"

// StartEtcd starts etcd on the hub.
func (n *Network) StartEtcd(ctx context.Context) error {
	program, err := exec.LookPath("etcd")
	if err != nil {
		return fmt.Errorf("%w: run scripts/install-packages.sh", err)
	}
	dir := filepath.Join(n.Local, "etcd")
	err = n.Hub.Spawn(filepath.Join(n.Hub.Disk, "etcd.log"), program,
		"--name", "hub", "--data-dir", dir, "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", "hub=http://127.0.0.1:2380",
		// The disk of a busy machine may take its time.
		"--heartbeat-interval", "500", "--election-timeout", "5000")
	if err != nil {
		return err
	}
	return n.awaitPort(ctx, hubIP+":2379", filepath.Join(n.Hub.Disk, "etcd.log"))
}

// awaitPort returns when somebody listens.
func (n *Network) awaitPort(ctx context.Context, address, log string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := n.Hub.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w; its log:\n%s", address, err, tail(log, 30))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// S3 is a versitygw on the hub, with one bucket. It can be killed and started
// again.
type S3 struct {
	URL, Bucket    string
	AccessKeyFile  string
	SecretKeyFile  string
	network        *Network
	binary, secret string
	dir, log       string
}

// s3AccessKey is not a secret: nobody else reaches that gateway.
const s3AccessKey = "walkeep"

// StartS3 starts one with an empty bucket.
func (n *Network) StartS3(ctx context.Context) (*S3, error) {
	binary, err := stores.Locate("versitygw")
	if err != nil {
		return nil, err
	}
	dir, err := n.env.Mkdir("s3")
	if err != nil {
		return nil, err
	}
	key := make([]byte, 20)
	_, _ = rand.Read(key) // never fails
	s := &S3{
		URL: "http://" + hubIP + ":7070", Bucket: "backups", network: n, dir: dir, log: filepath.Join(dir, "server.log"),
		binary: n.env.Command(ctx, binary).Path, secret: hex.EncodeToString(key), // a path that the servers' user can reach
		AccessKeyFile: filepath.Join(dir, "access-key"), SecretKeyFile: filepath.Join(dir, "secret-key"),
	}
	err = errors.Join(
		os.MkdirAll(filepath.Join(dir, "buckets", s.Bucket), 0o700),
		os.Mkdir(filepath.Join(dir, "sidecar"), 0o700),
		os.WriteFile(s.AccessKeyFile, []byte(s3AccessKey+"\n"), 0o600),
		os.WriteFile(s.SecretKeyFile, []byte(s.secret+"\n"), 0o600),
		n.env.Own(dir),
	)
	if err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

// Start starts the gateway again after Kill, unless it runs.
func (s *S3) Start(ctx context.Context) error {
	if len(s.network.Hub.processes(s.matches)) > 0 {
		return nil
	}
	err := s.network.Hub.Spawn(s.log, "env", "ROOT_ACCESS_KEY="+s3AccessKey, "ROOT_SECRET_KEY="+s.secret,
		s.binary, "--port", strings.TrimPrefix(s.URL, "http://"), "--region", "us-east-1", "--quiet", "--keep-alive",
		"posix", "--sidecar", filepath.Join(s.dir, "sidecar"), filepath.Join(s.dir, "buckets"))
	if err != nil {
		return err
	}
	return s.network.awaitPort(ctx, strings.TrimPrefix(s.URL, "http://"), s.log)
}

// Kill kills it with SIGKILL. Requests are refused until Start.
func (s *S3) Kill() { s.network.Hub.Kill9(s.matches) }

func (s *S3) matches(cmdline string) bool { return strings.HasPrefix(cmdline, s.binary) }

// YAML is the entry of a walkeep configuration, without its name.
func (s *S3) YAML() string {
	return fmt.Sprintf("s3: {bucket: %s, endpoint: %q, region: us-east-1, path-style: true, access-key-id-file: %s, secret-access-key-file: %s}",
		s.Bucket, s.URL, s.AccessKeyFile, s.SecretKeyFile)
}

// dial is a DialContext that starts on the hub.
func (n *Network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.Hub.DialContext(ctx, network, address)
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
