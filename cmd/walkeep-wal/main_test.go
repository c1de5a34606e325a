package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
)

// build compiles walkeep-wal into a directory of its own.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3", "-o", filepath.Join(dir, "walkeep-wal"), ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// fakeWalkeep prints its arguments and ends with status 42.
func fakeWalkeep(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "walkeep"), []byte("#!/bin/sh\necho \"$@\"\nexit 42\n"), 0o755))
}

func call(dir, path string, args ...string) (int, string, string) {
	cmd := exec.Command(filepath.Join(dir, "walkeep-wal"), args...)
	cmd.Env = []string{"PATH=" + path}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

func TestBecomesWalkeep(t *testing.T) {
	dir, other := build(t), t.TempDir()
	check := func(path string) {
		t.Helper()
		for args, want := range map[string]string{
			"push pg_wal/000000010000000000000001":                "wal push -- pg_wal/000000010000000000000001",
			"--config /c push x":                                  "--config /c wal push -- x",
			"get 00000002.history pg_wal/RECOVERYXLOG":            "wal get -- 00000002.history pg_wal/RECOVERYXLOG",
			"get 00000002.history pg_wal/RECOVERYXLOG --config=c": "--config c wal get -- 00000002.history pg_wal/RECOVERYXLOG",
		} {
			code, out, _ := call(dir, path, strings.Fields(args)...)
			require.Equal(t, 42, code, args)
			require.Equal(t, want+"\n", out)
		}
	}
	fakeWalkeep(t, other)
	check(other + ":/bin:/usr/bin")
	fakeWalkeep(t, dir) // the one beside it comes first, and needs no PATH
	check("")
}

func TestExitStatuses(t *testing.T) {
	dir := build(t)
	for args, want := range map[string]int{
		"push x":          1,
		"get NAME DEST":   127,
		"":                126,
		"nonsense":        126,
		"get NAME":        126,
		"get NAME D more": 126,
		"get --x NAME D":  126,
		"--config":        126,
		"push":            2,
		"push a b":        2,
		"push --force a":  2,
		"push a --config": 2,
		"--version":       0,
		"--help":          0,
	} {
		code, out, errs := call(dir, "", strings.Fields(args)...)
		require.Equal(t, want, code, args)
		if want != 0 {
			require.Empty(t, out, args)
			require.Contains(t, errs, "walkeep-wal: ", args)
		}
	}
	_, out, _ := call(dir, "", "--version")
	require.Equal(t, "walkeep-wal 1.2.3\n", out)
	_, _, errs := call(dir, "", "push", "x")
	require.Contains(t, errs, "neither beside")
}

// A push to repositories on file systems needs no walkeep at all; one to any
// other becomes walkeep, and so does a configuration that does not load.
func TestPushDirectly(t *testing.T) {
	dir, node := build(t), t.TempDir()
	repo := t.TempDir()
	segments := waltest.New(7211111111111111111)
	require.NoError(t, waltest.WriteControl(node, waltest.Control(7211111111111111111, pg.StateProduction, 1, segments.Size)))
	segments.Fill(0)
	name, content := segments.Segment(0)
	path := filepath.Join(node, "pg_wal", string(name))
	require.NoError(t, os.WriteFile(path, content, 0o600))
	config := func(name, text string) string {
		file := filepath.Join(node, name)
		require.NoError(t, os.WriteFile(file, []byte("cluster: hippo\nrepos:\n"+text), 0o600))
		return file
	}

	file := config("files.yaml", "  - {name: repo1, filesystem: {path: "+repo+"}}\n")
	for range 2 { // the second finds it
		code, out, errs := call(dir, "", "--config", file, "push", path)
		require.Equal(t, [3]any{0, "", ""}, [3]any{code, out, errs})
	}
	found, err := filepath.Glob(filepath.Join(repo, "hippo", "*", "wal", "*", "*", string(name)))
	require.NoError(t, err)
	require.Len(t, found, 1)

	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o600))
	code, _, errs := call(dir, "", "--config", file, "push", path)
	require.Equal(t, failPush, code)
	require.Contains(t, errs, string(name))

	fakeWalkeep(t, dir)
	for _, file := range []string{
		config("cloud.yaml", "  - {name: repo1, filesystem: {path: "+repo+"}}\n  - {name: repo2, gcs: {bucket: b}}\n"),
		config("broken.yaml", "  - {name: repo9}\n"),
		filepath.Join(node, "missing.yaml"),
	} {
		code, _, _ := call(dir, "", "--config", file, "push", path)
		require.Equal(t, 42, code, file)
	}
}

// The server sends SIGQUIT when it ends at once: no stacks in its log, and no
// status that means "not archived".
func TestQuit(t *testing.T) {
	dir := build(t)
	socket := filepath.Join(dir, "agent.sock")
	agent, err := net.Listen("unix", socket) // which never answers
	require.NoError(t, err)
	defer agent.Close()
	file := filepath.Join(dir, "walkeep.yaml")
	require.NoError(t, os.WriteFile(file, []byte("cluster: hippo\nagent: {socket: "+socket+"}\nrepos:\n  - {name: repo1, filesystem: {path: /nowhere}}\n"), 0o600))
	cmd := exec.Command(filepath.Join(dir, "walkeep-wal"), "--config", file, "get", "000000010000000000000001", filepath.Join(dir, "RECOVERYXLOG"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	conn, err := agent.Accept() // it waits now
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, cmd.Process.Signal(syscall.SIGQUIT))
	_ = cmd.Wait()
	require.Equal(t, 128+int(syscall.SIGQUIT), cmd.ProcessState.ExitCode())
	require.Empty(t, stderr.String())
}

func BenchmarkStartAndExit(b *testing.B) {
	dir := b.TempDir()
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "walkeep-wal"), ".").CombinedOutput()
	require.NoError(b, err, string(out))
	for b.Loop() {
		require.NoError(b, exec.Command(filepath.Join(dir, "walkeep-wal"), "--version").Run())
	}
}
