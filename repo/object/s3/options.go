package s3

import (
	"errors"
	"fmt"
)

// Options say where a bucket is and how to sign in. Only Bucket is required.
//
// Credentials come from the first of these that is set:
//
//  1. AccessKeyFile and SecretKeyFile (and SessionTokenFile)
//  2. CredentialsFile, Profile: the files of the AWS command line
//  3. the SDK's default chain: AWS_* variables, ~/.aws, web identity (IRSA),
//     EKS pod identity, ECS task role, EC2 instance role
type Options struct {
	// Bucket must exist; the driver never creates one.
	Bucket string
	// Region signs requests and, without Endpoint, names the host. Empty: the
	// region of the environment or profile; if that has none either,
	// "us-east-1" with an Endpoint, an error without.
	Region string
	// Endpoint is for stores other than AWS: "host", "host:port" (both https)
	// or a URL with http or https. Empty: AWS.
	Endpoint string
	// PathStyle sends https://endpoint/bucket/key in place of
	// https://bucket.endpoint/key. Most stores other than AWS need it. An
	// endpoint that is an IP address is always used path style.
	PathStyle bool
	// CAFile holds PEM certificates to trust besides those of the system.
	CAFile string

	// AccessKeyFile and SecretKeyFile each hold one value; white space around
	// it is ignored. They are read again every few minutes, so a rotated
	// secret needs no restart.
	AccessKeyFile string
	SecretKeyFile string
	// SessionTokenFile goes with temporary keys; optional.
	SessionTokenFile string

	// CredentialsFile is an AWS shared credentials file (INI), used in place
	// of ~/.aws/credentials.
	CredentialsFile string
	// Profile is the section of the shared files to use; empty: AWS_PROFILE,
	// else "default".
	Profile string

	// PartSize is the size in bytes of the parts of a large upload: at least
	// 5 MiB; 0 means 8 MiB. Objects up to this size go in one request. See
	// the package comment for how parts grow.
	PartSize int64
	// PartsInFlight is how many parts one Put sends at once; 0 means 3. One
	// Put holds at most PartsInFlight × PartSize bytes in memory (one part,
	// where parts have grown larger than that).
	PartsInFlight int
}

// withDefaults checks o and fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Bucket == "" {
		return o, errors.New("s3: no bucket given")
	}
	if (o.AccessKeyFile == "") != (o.SecretKeyFile == "") {
		return o, errors.New("s3: an access key file and a secret key file go together; only one is given")
	}
	if o.SessionTokenFile != "" && o.AccessKeyFile == "" {
		return o, errors.New("s3: a session token file needs an access key file and a secret key file")
	}
	if o.AccessKeyFile != "" && (o.CredentialsFile != "" || o.Profile != "") {
		return o, errors.New("s3: key files exclude a credentials file or a profile")
	}
	if o.PartSize == 0 {
		o.PartSize = defaultPartSize
	}
	if o.PartSize < minPartSize || o.PartSize > maxPartSize {
		return o, fmt.Errorf("s3: part size %d is outside %d to %d", o.PartSize, minPartSize, int64(maxPartSize))
	}
	if o.PartsInFlight == 0 {
		o.PartsInFlight = defaultPartsInFlight
	}
	if o.PartsInFlight < 1 || o.PartsInFlight > 64 {
		return o, fmt.Errorf("s3: %d parts in flight is outside 1 to 64", o.PartsInFlight)
	}
	return o, nil
}
