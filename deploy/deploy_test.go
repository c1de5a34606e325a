// Package deploy tests the files beside it: units, manifests, and what they
// agree on. (Alerts and dashboard are tested in api/metrics.)
package deploy

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/config"
)

// manifests are the documents of deploy/kubernetes, by file.
func manifests(t *testing.T) map[string][]map[string]any {
	paths, err := filepath.Glob("kubernetes/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	all := map[string][]map[string]any{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		d := yaml.NewDecoder(bytes.NewReader(data))
		for {
			var doc map[string]any
			err := d.Decode(&doc)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, path)
			all[path] = append(all[path], doc)
		}
	}
	return all
}

// at follows keys through mappings; nil if there is nothing.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// TestPodsAreRestricted: every pod satisfies the Pod Security Standard
// "restricted", and more: nothing can be written outside of volumes, memory is
// bounded, and only the service has a token of Kubernetes.
func TestPodsAreRestricted(t *testing.T) {
	pods := 0
	for path, docs := range manifests(t) {
		for _, doc := range docs {
			spec := at(doc, "spec", "template", "spec")
			if spec == nil {
				continue
			}
			pods++
			require.Equal(t, true, at(spec, "securityContext", "runAsNonRoot"), path)
			require.Equal(t, "RuntimeDefault", at(spec, "securityContext", "seccompProfile", "type"), path)
			require.Equal(t, path == "kubernetes/serve.yaml", at(spec, "automountServiceAccountToken"), path)
			for _, key := range []string{"hostNetwork", "hostPID", "hostIPC"} {
				require.Nil(t, at(spec, key), path)
			}
			var containers []any
			for _, key := range []string{"containers", "initContainers"} {
				list, _ := at(spec, key).([]any)
				containers = append(containers, list...)
			}
			require.NotEmpty(t, containers)
			for _, c := range containers {
				name := path + " " + at(c, "name").(string)
				require.Equal(t, false, at(c, "securityContext", "allowPrivilegeEscalation"), name)
				require.Equal(t, []any{"ALL"}, at(c, "securityContext", "capabilities", "drop"), name)
				require.NotNil(t, at(c, "resources", "requests", "memory"), name)
				if strings.Contains(at(c, "image").(string), "/walkeep:") {
					require.Equal(t, true, at(c, "securityContext", "readOnlyRootFilesystem"), name)
					require.NotNil(t, at(c, "resources", "limits", "memory"), name)
				}
			}
		}
	}
	require.Equal(t, 3, pods)
}

// TestConfigurationIsRead: the configuration in the ConfigMap is one that
// walkeep accepts, and the files that it names are keys of the Secret.
func TestConfigurationIsRead(t *testing.T) {
	all := manifests(t)
	text, ok := at(all["kubernetes/configuration.yaml"][0], "data", "walkeep.yaml").(string)
	require.True(t, ok)
	_, err := config.Parse("walkeep.yaml", []byte(text))
	require.NoError(t, err)
	secret, ok := at(all["kubernetes/secret.yaml"][0], "stringData").(map[string]any)
	require.True(t, ok)
	keys := slices.Collect(maps.Keys(secret))
	const dir = "/etc/walkeep/secret/"
	for _, part := range strings.Split(text, dir)[1:] {
		name := part[:strings.IndexAny(part, " \n}")]
		require.Contains(t, keys, name)
	}
}

// TestUnits lets systemd judge the units: what is in them, and how much they
// leave open.
func TestUnits(t *testing.T) {
	paths, err := filepath.Glob("systemd/*.service")
	require.NoError(t, err)
	require.Len(t, paths, 2)
	dir := t.TempDir()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		text := string(data)
		require.Contains(t, text, "Type=notify\n")
		require.Contains(t, text, "WatchdogSec=")
		// systemd wants the program to be there.
		unit := filepath.Join(dir, filepath.Base(path))
		require.NoError(t, os.WriteFile(unit, []byte(strings.ReplaceAll(text, "/usr/local/bin/walkeep", "/bin/true")), 0o644))
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
		require.NoError(t, err, "%s", out)
		for line := range strings.Lines(string(out)) {
			require.NotContains(t, line, filepath.Base(path), "a complaint about the unit itself")
		}
		// 0 is closed, 10 open; the worst that is accepted is 3.0.
		out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=30", unit).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
