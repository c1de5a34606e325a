package dial

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/dial/cloud"
)

func parse(t *testing.T, repos string) []config.Repo {
	c, err := config.Parse("test", []byte("cluster: hippo\nrepos:\n"+repos))
	require.NoError(t, err)
	return c.Repos
}

func open(t *testing.T, c config.Repo, log *zap.Logger) *repo.Repository {
	r, err := Open(context.Background(), c, Options{Cluster: "hippo", Log: log, Cloud: cloud.Open})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Store().Close()) })
	return r
}

// TestPlaces opens a repository of every kind, without a server to answer.
func TestPlaces(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	dir := t.TempDir()
	for _, f := range []string{"id", "secret"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte("a2V5"), 0o600))
	}
	repos := parse(t, `
  - name: repo1
    s3: {bucket: b, region: r, endpoint: "http://127.0.0.1:1", path-style: true, access-key-id-file: `+dir+`/id, secret-access-key-file: `+dir+`/secret}
    limit: {requests: 4, upload: 1MB}
  - {name: repo2, gcs: {bucket: b, endpoint: "http://127.0.0.1:1", anonymous: true}}
  - {name: repo3, azure: {container: c, account: a, endpoint: "http://127.0.0.1:1", account-key-file: `+dir+`/secret}, prefix: some/where}
  - {name: repo4, filesystem: {path: `+dir+`}, compression: {codec: lz4, level: 9}}
`)
	for i, want := range []string{"s3://b", "gs://b", "azure://a/c", "filesystem:" + dir + "/hippo"} {
		r := open(t, repos[i], nil)
		require.Contains(t, r.Store().String(), want)
		require.Equal(t, repos[i].Name, r.Name())
		require.NotContains(t, r.Store().String(), "a2V5")
	}
	require.Equal(t, "lz4:9", open(t, repos[3], nil).Codec().String())
}

func TestFilesystem(t *testing.T) {
	dir := t.TempDir()
	repos := parse(t, "  - {name: repo1, filesystem: {path: "+dir+"/new, create: true}}\n  - {name: repo2, filesystem: {path: "+dir+"/missing}}\n")
	require.NoError(t, open(t, repos[0], nil).Init(context.Background()))
	require.FileExists(t, filepath.Join(dir, "new/hippo/walkeep"))

	// What cannot be opened answers every request with the reason.
	late := open(t, repos[1], nil)
	err := late.Init(context.Background())
	require.ErrorContains(t, err, "does not exist")
	require.NoDirExists(t, filepath.Join(dir, "missing"))
	// Until it can be: a service that starts early goes on.
	require.NoError(t, os.Mkdir(filepath.Join(dir, "missing"), 0o700))
	require.Eventually(t, func() bool { return late.Init(context.Background()) == nil }, time.Minute, 100*time.Millisecond)
	require.FileExists(t, filepath.Join(dir, "missing/hippo/walkeep"))
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	key := filepath.Join(dir, "identity")
	require.NoError(t, os.WriteFile(key, []byte("# a comment\n"+identity.String()+"\n"), 0o644))
	require.NoError(t, os.Chmod(key, 0o644))
	recipients := filepath.Join(dir, "recipients")
	require.NoError(t, os.WriteFile(recipients, []byte(identity.Recipient().String()+"\n"), 0o644))
	repos := parse(t, `
  - {name: repo1, filesystem: {path: `+dir+`/a, create: true}, encryption: {identity-file: `+key+`}}
  - {name: repo2, filesystem: {path: `+dir+`/b, create: true}, encryption: {recipients-file: `+recipients+`, metadata-identity-file: `+key+`}}
  - {name: repo3, filesystem: {path: `+dir+`/c, create: true}, encryption: {identity-file: `+dir+`/none}}
  - {name: repo4, filesystem: {path: `+dir+`/d, create: true}, encryption: {identity-file: `+recipients+`}}
`)
	core, logs := observer.New(zap.WarnLevel)
	r := open(t, repos[0], zap.New(core))
	require.True(t, r.Encrypted())
	require.NoError(t, r.Init(context.Background()))
	require.Equal(t, 1, logs.FilterField(zap.String("file", key)).Len(), "the key file can be read by everybody")

	require.True(t, open(t, repos[1], nil).Encrypted())

	// Without its keys a repository takes nothing, above all nothing plain.
	for _, c := range repos[2:] {
		r := open(t, c, nil)
		require.Error(t, r.Init(context.Background()))
		require.NoFileExists(t, filepath.Join(c.Filesystem.Path, "hippo/walkeep"))
	}
	require.ErrorIs(t, open(t, repos[2], nil).Init(context.Background()), os.ErrNotExist)
}
