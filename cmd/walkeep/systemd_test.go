package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTellSystemd is systemd: it hears that the program is ready, how it is,
// that it lives, and that it stops; and nothing while its status hangs.
func TestTellSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	hear := func() string {
		require.NoError(t, socket.SetReadDeadline(time.Now().Add(30*time.Second)))
		b := make([]byte, 1024)
		n, err := socket.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
	until := func(want string) {
		for {
			if strings.Contains(hear(), want) {
				return
			}
		}
	}

	statuses := make(chan string, 1)
	statuses <- "following"
	current := ""
	r := &root{stderr: os.Stderr}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.tellSystemd(ctx, func() string {
			select {
			case current = <-statuses:
			default:
			}
			return current
		})
	}()
	require.Equal(t, "READY=1\nSTATUS=following", hear())
	until("WATCHDOG=1")
	statuses <- "leading"
	until("STATUS=leading")
	until("WATCHDOG=1")
	cancel()
	until("STOPPING=1")
	<-done

	t.Setenv("NOTIFY_SOCKET", "")
	r.tellSystemd(t.Context(), func() string { return "" }) // returns: nobody listens
}
