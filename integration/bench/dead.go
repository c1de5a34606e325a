package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// deadFor is how long the second repository is away, at least.
const deadFor = 20 * time.Second

// deadSegments is how many segments the server writes in that time.
const deadSegments = 40

// dead shows what becomes of one of two repositories, which have to have every
// segment, while the other one is away: how many of the segments that the server
// writes it has when the other one comes back, and how long it takes from
// then on until both have all.
func (b *bench) dead(ctx context.Context) error {
	second, err := b.env.Mkdir("repo-second")
	if err != nil {
		return err
	}
	spool, err := b.env.Mkdir("spool-dead")
	if err != nil {
		return err
	}
	push := fmt.Sprintf(`pgbackrest --config=%s --stanza=bench archive-push "%%p"`, b.backs)
	for _, tool := range []struct {
		name, command, living string
		agent                 bool
	}{
		{"walkeep with an agent", b.site.ArchiveSettings()["archive_command"], b.ours, true},
		{"pgBackRest", push, b.theirs, false},
		{"pgBackRest, asynchronous", strings.Replace(push, "archive-push", "--archive-async --spool-path="+spool+" archive-push", 1), b.theirs, false},
	} {
		if err := empty(second); err != nil {
			return err
		}
		if err := b.setCodec(ctx, codec{name: "lz4", back: "lz4", level: 1}); err != nil {
			return err
		}
		if err := b.addRepository(ctx, second); err != nil {
			return err
		}
		stop := func() error { return nil }
		if tool.agent {
			if stop, _, err = b.startAgent(ctx); err != nil {
				return err
			}
		}
		text, err := b.oneDead(ctx, tool.command, tool.living, second)
		if err := errors.Join(err, stop()); err != nil {
			return fmt.Errorf("%s: %w", tool.name, err)
		}
		b.add(row{work: "one of two repositories is dead, " + tool.name, text: text})
	}
	return nil
}

// addRepository gives both tools a second one.
func (b *bench) addRepository(ctx context.Context, dir string) error {
	for file, change := range map[string]func(string) string{
		b.site.Config: func(text string) string {
			return text + fmt.Sprintf("  - name: repo2\n    filesystem: {path: %s}\n    compression: {codec: lz4}\n", dir)
		},
		b.backs: func(text string) string {
			return strings.Replace(text, "[global]\n", fmt.Sprintf("[global]\nrepo2-path=%s\nrepo2-retention-full=1\n", dir), 1)
		},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(change(string(text))), 0o644); err != nil {
			return err
		}
	}
	_, err := b.pgbackrest(ctx, "stanza-create")
	return err
}

func (b *bench) oneDead(ctx context.Context, command, living, second string) (string, error) {
	if err := b.server.Configure(map[string]string{"archive_command": command}); err != nil {
		return "", err
	}
	if err := b.server.Reload(ctx); err != nil {
		return "", err
	}
	if err := b.writeWAL(ctx, 1); err != nil { // both have what they need for a beginning
		return "", err
	}
	before, err := countSegments(living)
	if err != nil {
		return "", err
	}
	// Closed to the tools, also by way of directories that they hold open.
	if err := setModes(second, 0); err != nil {
		return "", err
	}
	died := time.Now()
	if _, err := b.updateUntil(ctx, deadSegments); err != nil {
		return "", errors.Join(err, setModes(second, 0o700))
	}
	select {
	case <-ctx.Done():
	case <-time.After(deadFor - time.Since(died)):
	}
	n, err := countSegments(living)
	if err := errors.Join(err, setModes(second, 0o700)); err != nil {
		return "", err
	}
	came := time.Now()
	for {
		one, err := countSegments(living)
		if err != nil {
			return "", err
		}
		two, err := countSegments(second)
		if err != nil {
			return "", err
		}
		if one >= before+deadSegments && two >= before+deadSegments {
			break
		}
		if time.Since(came) > 5*time.Minute {
			return "", fmt.Errorf("after 5 minutes %d and %d segments of %d", one, two, before+deadSegments)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Sprintf("%d of %d segments in the one that lives after %s, all in both %.1f s after the other one came back",
		n-before, deadSegments, deadFor, time.Since(came).Seconds()), nil
}

// setModes sets the modes of all directories of a tree. It is for root, whom no
// mode keeps out.
func setModes(tree string, mode os.FileMode) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, mode)
	})
}

// countSegments counts archived segments, of either tool, by their names.
func countSegments(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a temporary file that got its name
		case err == nil && d.Type().IsRegular() && isSegment(path):
			n++
		}
		return err
	})
	return n, err
}

// isSegment tells whether a file of a repository is an archived segment.
func isSegment(path string) bool {
	name := filepath.Base(path)
	return len(name) >= 24 && strings.Trim(name[:24], "0123456789ABCDEF") == ""
}
