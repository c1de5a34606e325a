package stores

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo/object/s3"
)

// S3 is a versitygw on a directory: objects are files.
type S3 struct {
	*Server
	Region        string
	AccessKeyFile string
	SecretKeyFile string
}

// StartS3 starts one.
func StartS3(ctx context.Context, o Options) (*S3, error) {
	binary, err := Locate("versitygw")
	if err != nil {
		return nil, err
	}
	access, secret := "walkeep"+random(4), random(20)
	s := &S3{Region: "us-east-1"}
	s.Server, err = start(ctx, program{
		name: "versitygw",
		command: func(s *Server, port string) *exec.Cmd {
			args := []string{
				"--port", "127.0.0.1:" + port, "--region", "us-east-1", "--quiet", "--keep-alive", "--health", "/health",
			}
			if o.TLS {
				args = append(args, "--cert", s.certFile(), "--key", s.keyFile())
			}
			args = append(args, "posix")
			if !attributes(s.Dir) {
				args = append(args, "--sidecar", filepath.Join(s.Dir, "sidecar"))
			}
			cmd := exec.Command(binary, append(args, filepath.Join(s.Dir, "buckets"))...)
			cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+access, "ROOT_SECRET_KEY="+secret)
			for _, dir := range []string{"buckets", "sidecar"} {
				_ = os.MkdirAll(filepath.Join(s.Dir, dir), 0o755) // versitygw says so if that failed
			}
			return cmd
		},
		path:  "/health",
		ready: func(resp *http.Response) bool { return resp.StatusCode == http.StatusOK },
	}, o)
	if err != nil {
		return nil, err
	}
	var err1, err2 error
	s.AccessKeyFile, err1 = s.secret("access-key", access)
	s.SecretKeyFile, err2 = s.secret("secret-key", secret)
	if err := errors.Join(err1, err2); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Bucket makes an empty bucket: to versitygw a directory is one.
func (s *S3) Bucket(context.Context) (string, error) {
	name := "walkeep-" + random(6)
	return name, os.Mkdir(filepath.Join(s.Dir, "buckets", name), 0o755)
}

// Options are those of a driver for a bucket of this server.
func (s *S3) Options(bucket string) s3.Options {
	return s3.Options{
		Bucket: bucket, Endpoint: s.URL, Region: s.Region, PathStyle: true, CAFile: s.CAFile,
		AccessKeyFile: s.AccessKeyFile, SecretKeyFile: s.SecretKeyFile,
	}
}

// attributes tells whether files in dir can have the extended attributes in
// which versitygw likes to keep metadata (not on every tmpfs).
func attributes(dir string) bool {
	return unix.Setxattr(dir, "user.walkeep", []byte("x"), 0) == nil
}
