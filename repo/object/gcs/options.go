package gcs

import (
	"errors"
	"fmt"
)

// Options say where a bucket is and how to sign in. Only Bucket is required.
//
// Without CredentialsFile and NoAuth, credentials come from Google's default
// chain: GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the metadata server
// (workload identity on GKE, service account of a machine).
type Options struct {
	// Bucket must exist; the driver never creates one.
	Bucket string
	// Endpoint is for stores other than Google's: "host", "host:port" (both
	// https) or a URL with http or https. Empty: Google.
	Endpoint string
	// CredentialsFile is a JSON key of a service account, an authorized user,
	// or an external account (workload identity federation).
	CredentialsFile string
	// NoAuth sends no credentials at all: for emulators.
	NoAuth bool
	// CAFile holds PEM certificates to trust besides those of the system.
	CAFile string

	// ChunkSize is how many bytes of an upload go in one request, a multiple
	// of 256 KiB; 0 means 8 MiB. A Put holds at most two chunks in memory.
	ChunkSize int64
}

// withDefaults checks o and fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Bucket == "" {
		return o, errors.New("gcs: no bucket given")
	}
	if o.NoAuth && o.CredentialsFile != "" {
		return o, errors.New("gcs: a credentials file and no authentication exclude one another")
	}
	if o.ChunkSize == 0 {
		o.ChunkSize = defaultChunkSize
	}
	if o.ChunkSize%chunkUnit != 0 || o.ChunkSize < chunkUnit || o.ChunkSize > maxChunkSize {
		return o, fmt.Errorf("gcs: chunk size %d is not a multiple of %d up to %d", o.ChunkSize, chunkUnit, maxChunkSize)
	}
	return o, nil
}
