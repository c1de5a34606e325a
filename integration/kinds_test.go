package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/integration/postgres"
	"github.com/walkeep/walkeep/integration/stores"
	"github.com/walkeep/walkeep/integration/walkeep"
)

func TestMain(m *testing.M) {
	code := m.Run()
	walkeep.Clean()
	clouds.stop()
	os.Exit(code)
}

// clouds are the object store servers, one of each for all tests of a run.
var clouds cloudServers

type cloudServers struct {
	once  sync.Once
	err   error
	s3    *stores.S3
	gcs   *stores.GCS
	azure *stores.Azure
}

func (c *cloudServers) start(t testing.TB) {
	c.once.Do(func() {
		ctx := context.Background()
		if c.s3, c.err = stores.StartS3(ctx, stores.Options{TLS: true}); c.err != nil {
			return
		}
		if c.gcs, c.err = stores.StartGCS(ctx, stores.Options{}); c.err != nil {
			return
		}
		c.azure, c.err = stores.StartAzure(ctx, stores.Options{})
	})
	require.NoError(t, c.err)
}

func (c *cloudServers) stop() {
	if c.s3 != nil {
		c.s3.Stop()
	}
	if c.gcs != nil {
		c.gcs.Stop()
	}
	if c.azure != nil {
		c.azure.Stop()
	}
}

// kinds are the kinds of stores, in the order of repo1 to repo4.
var kinds = []string{"filesystem", "s3", "gcs", "azure"}

// fourRepos is the repos part of a configuration with one fresh repository of
// each kind, its secrets in files that the servers' user can read.
func fourRepos(t testing.TB, env *postgres.Env, encrypted bool) string {
	clouds.start(t)
	dir := env.TempDir(t, "secrets")
	stores := []string{
		fmt.Sprintf("filesystem: {path: %s}", env.TempDir(t, "repo")),
		s3YAML(t, env, dir, testBucket(t, clouds.s3)),
		fmt.Sprintf("gcs: {bucket: %s, endpoint: %q, anonymous: true}", testBucket(t, clouds.gcs), clouds.gcs.URL),
		fmt.Sprintf("azure: {container: %s, account: %s, endpoint: %q, account-key-file: %s}",
			testBucket(t, clouds.azure), clouds.azure.Account, azureEndpoint(), ownedCopy(t, env, dir, "azure", clouds.azure.KeyFile)),
	}
	encryption := ""
	if encrypted {
		encryption = "\n    encryption: {identity-file: " + identityFile(t, env, dir) + "}"
	}
	var b strings.Builder
	b.WriteString("repos:\n")
	for i, s := range stores {
		fmt.Fprintf(&b, "  - name: repo%d\n    %s%s\n", i+1, s, encryption)
	}
	return b.String()
}

// s3YAML is a bucket of the S3 server in a configuration.
func s3YAML(t testing.TB, env *postgres.Env, dir, bucket string) string {
	s := clouds.s3
	return fmt.Sprintf("s3: {bucket: %s, endpoint: %q, region: %s, path-style: true, ca-file: %s, access-key-id-file: %s, secret-access-key-file: %s}",
		bucket, s.URL, s.Region, ownedCopy(t, env, dir, "ca", s.CAFile), ownedCopy(t, env, dir, "access", s.AccessKeyFile), ownedCopy(t, env, dir, "secret", s.SecretKeyFile))
}

// ownedCopy is a secret where the servers' user can read it.
func ownedCopy(t testing.TB, env *postgres.Env, dir, name, from string) string {
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	return writeOwned(t, env, filepath.Join(dir, name), text)
}

// azureEndpoint is the URL as the driver of the configuration wants it.
func azureEndpoint() string { return clouds.azure.Options("").Endpoint }

func testBucket(t testing.TB, server interface {
	Bucket(context.Context) (string, error)
},
) string {
	return stores.Bucket(t, server)
}

func identityFile(t testing.TB, env *postgres.Env, dir string) string {
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return writeOwned(t, env, filepath.Join(dir, "identity"), []byte(id.String()+"\n"))
}

// writeOwned writes a file that only the servers' user can read.
func writeOwned(t testing.TB, env *postgres.Env, path string, text []byte) string {
	require.NoError(t, os.WriteFile(path, text, 0o600))
	require.NoError(t, env.Own(path))
	return path
}
