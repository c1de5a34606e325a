// Package cloud opens the drivers of the cloud stores for package dial. It is
// apart from it, because importing the cloud SDKs alone makes a program take
// 10 to 20 ms longer to start, which walkeep-wal, started for every WAL
// segment, does not have.
package cloud

import (
	"context"
	"errors"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/azure"
	"github.com/walkeep/walkeep/repo/object/gcs"
	"github.com/walkeep/walkeep/repo/object/s3"
)

// Open is the bare driver of a repository on S3, GCS or Azure. It sends
// nothing.
func Open(ctx context.Context, c config.Repo) (object.Store, error) {
	switch {
	case c.S3 != nil:
		return s3.New(ctx, s3.Options{
			Bucket:           c.S3.Bucket,
			Region:           c.S3.Region,
			Endpoint:         c.S3.Endpoint,
			PathStyle:        c.S3.PathStyle,
			CAFile:           c.S3.CAFile,
			AccessKeyFile:    c.S3.AccessKeyIDFile,
			SecretKeyFile:    c.S3.SecretAccessKeyFile,
			SessionTokenFile: c.S3.SessionTokenFile,
			CredentialsFile:  c.S3.CredentialsFile,
			Profile:          c.S3.Profile,
		})
	case c.GCS != nil:
		return gcs.New(ctx, gcs.Options{
			Bucket:          c.GCS.Bucket,
			Endpoint:        c.GCS.Endpoint,
			CredentialsFile: c.GCS.CredentialsFile,
			NoAuth:          c.GCS.Anonymous,
			CAFile:          c.GCS.CAFile,
		})
	case c.Azure != nil:
		return azure.New(ctx, azure.Options{
			Container: c.Azure.Container,
			Account:   c.Azure.Account,
			Endpoint:  c.Azure.Endpoint,
			CAFile:    c.Azure.CAFile,
			KeyFile:   c.Azure.AccountKeyFile,
			SASFile:   c.Azure.SASTokenFile,
		})
	}
	return nil, errors.New("no store is configured")
}
