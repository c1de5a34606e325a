package stores

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/azure"
	"github.com/walkeep/walkeep/repo/object/gcs"
	"github.com/walkeep/walkeep/repo/object/s3"
)

// Each server starts, plain and with TLS, gives out buckets that a driver can
// use, and is gone after Stop.
func TestServers(t *testing.T) {
	for _, o := range []Options{{}, {TLS: true}} {
		name := map[bool]string{false: "http", true: "https"}[o.TLS]
		t.Run("s3/"+name, func(t *testing.T) {
			s := Run(t, StartS3, o)
			store, err := s3.New(t.Context(), s.Options(Bucket(t, s)))
			require.NoError(t, err)
			use(t, s.Server, store, err)
		})
		t.Run("gcs/"+name, func(t *testing.T) {
			s := Run(t, StartGCS, o)
			store, err := gcs.New(t.Context(), s.Options(Bucket(t, s)))
			use(t, s.Server, store, err)
		})
		t.Run("azure/"+name, func(t *testing.T) {
			s := Run(t, StartAzure, o)
			store, err := azure.New(t.Context(), s.Options(Bucket(t, s)))
			use(t, s.Server, store, err)
		})
	}
}

func use(t *testing.T, s *Server, store object.Store, err error) {
	t.Helper()
	require.NoError(t, err)
	defer store.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	info, err := store.Put(ctx, "a/b", strings.NewReader("hello"), object.PutOptions{IfAbsent: true})
	require.NoError(t, err)
	require.EqualValues(t, 5, info.Size)
	r, err := store.Get(ctx, "a/b", 1, 3)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, "ell", string(b))

	pid := s.cmd.Process.Pid
	require.NoError(t, s.Stop())
	_, err = os.Stat("/proc/" + strconv.Itoa(pid))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = os.Stat(s.Dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = http.Get(s.URL)
	require.Error(t, err)
	require.NoError(t, s.Stop())
}

func TestLocateNamesTheRemedy(t *testing.T) {
	_, err := Locate("no-such-server")
	require.ErrorContains(t, err, "run: make tools")
}
