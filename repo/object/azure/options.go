package azure

import (
	"errors"
	"fmt"
)

// Options say where a container is and how to sign in. Container and Account
// are required.
//
// Without KeyFile and SASFile, credentials come from azidentity's default
// chain: AZURE_* variables, workload identity, managed identity, the Azure
// command line.
type Options struct {
	// Container must exist; the driver never creates one.
	Container string
	// Account is the name of the storage account.
	Account string
	// Endpoint is the blob service, "host", "host:port" (both https) or a URL
	// with http or https; empty: https://<account>.blob.core.windows.net. A
	// URL with a path is used as it is; without one, an IP address or
	// "localhost" is taken for an emulator and the account becomes the path.
	Endpoint string
	// CAFile holds PEM certificates to trust besides those of the system.
	CAFile string

	// KeyFile holds the account's shared key (base64), SASFile a shared access
	// signature ("sv=…&sig=…", with or without the leading "?"); at most one
	// of them. White space around the value is ignored. Both are read once,
	// by New.
	KeyFile string
	SASFile string

	// BlockSize is the size in bytes of the blocks of a large upload, at
	// least 64 KiB; 0 means 8 MiB. Objects up to this size go in one request.
	// See the package comment for how blocks grow.
	BlockSize int64
	// BlocksInFlight is how many blocks one Put sends at once; 0 means 3. One
	// Put holds at most BlocksInFlight × BlockSize bytes in memory (one
	// block, where blocks have grown larger than that).
	BlocksInFlight int
}

// withDefaults checks o and fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Container == "" {
		return o, errors.New("azure: no container given")
	}
	if o.Account == "" {
		return o, errors.New("azure: no account given")
	}
	if o.KeyFile != "" && o.SASFile != "" {
		return o, errors.New("azure: a key file and a SAS file exclude one another")
	}
	if o.BlockSize == 0 {
		o.BlockSize = defaultBlockSize
	}
	if o.BlockSize < minBlockSize || o.BlockSize > maxBlockSize {
		return o, fmt.Errorf("azure: block size %d is outside %d to %d", o.BlockSize, minBlockSize, int64(maxBlockSize))
	}
	if o.BlocksInFlight == 0 {
		o.BlocksInFlight = defaultBlocksInFlight
	}
	if o.BlocksInFlight < 1 || o.BlocksInFlight > 64 {
		return o, fmt.Errorf("azure: %d blocks in flight is outside 1 to 64", o.BlocksInFlight)
	}
	return o, nil
}
