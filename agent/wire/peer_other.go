//go:build !linux

package wire

import (
	"net"
	"os"
)

// PeerUID trusts the mode of the socket where the kernel does not say.
func PeerUID(*net.UnixConn) (int, error) { return os.Getuid(), nil }
