package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// keyFileTTL is how long keys from files are used before they are read again.
const keyFileTTL = 5 * time.Minute

// loadConfig turns opts into the SDK's configuration and a transport for the
// store. It reads files and the environment, and sends nothing.
func loadConfig(ctx context.Context, opts Options) (aws.Config, *cloud.Transport, error) {
	fail := func(err error) (aws.Config, *cloud.Transport, error) {
		return aws.Config{}, nil, fmt.Errorf("s3 bucket %s: %w", opts.Bucket, err)
	}
	caFile := opts.CAFile
	if caFile == "" {
		caFile = os.Getenv("AWS_CA_BUNDLE") // what the SDK does for its own client
	}
	transport, err := cloud.NewTransport(caFile)
	if err != nil {
		return fail(err)
	}
	// The credential chain talks to other hosts (STS, instance metadata), with
	// the SDK's own client.
	chain := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.TLSClientConfig.RootCAs = transport.TLSClientConfig.RootCAs
	})
	load := []func(*config.LoadOptions) error{config.WithHTTPClient(chain)}
	if opts.Region != "" {
		load = append(load, config.WithRegion(opts.Region))
	}
	if opts.AccessKeyFile != "" {
		load = append(load, config.WithCredentialsProvider(keyFiles{opts}))
	}
	if opts.CredentialsFile != "" {
		if _, err := os.Stat(opts.CredentialsFile); err != nil {
			return fail(fmt.Errorf("credentials file: %w", err)) // the SDK would ignore it
		}
		load = append(load, config.WithSharedCredentialsFiles([]string{opts.CredentialsFile}))
		if opts.Profile == "" {
			// Naming a profile makes it win over AWS_ACCESS_KEY_ID.
			opts.Profile = "default"
			if p := os.Getenv("AWS_PROFILE"); p != "" {
				opts.Profile = p
			}
		}
	}
	if opts.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(opts.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return fail(fmt.Errorf("load AWS configuration: %w", err))
	}
	if opts.Endpoint != "" {
		u, err := cloud.Endpoint(opts.Endpoint)
		if err != nil {
			return fail(err)
		}
		cfg.BaseEndpoint = aws.String(u.String())
	}
	if cfg.Region == "" {
		if cfg.BaseEndpoint == nil {
			return fail(errors.New("no region given, nor found in the environment or profile"))
		}
		cfg.Region = "us-east-1"
	}
	return cfg, transport, nil
}

// keyFiles reads static keys from files, again each time they expire from the
// SDK's cache.
type keyFiles struct{ opts Options }

// Retrieve implements aws.CredentialsProvider.
func (k keyFiles) Retrieve(context.Context) (aws.Credentials, error) {
	c := aws.Credentials{Source: "files", CanExpire: true, Expires: time.Now().Add(keyFileTTL)}
	var err error
	if c.AccessKeyID, err = cloud.Secret(k.opts.AccessKeyFile); err != nil {
		return aws.Credentials{}, err
	}
	if c.SecretAccessKey, err = cloud.Secret(k.opts.SecretKeyFile); err != nil {
		return aws.Credentials{}, err
	}
	if k.opts.SessionTokenFile != "" {
		if c.SessionToken, err = cloud.Secret(k.opts.SessionTokenFile); err != nil {
			return aws.Credentials{}, err
		}
	}
	return c, nil
}
