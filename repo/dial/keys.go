package dial

import (
	"fmt"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/repo"
)

// maxKeyFile is far above any honest key file, in bytes.
const maxKeyFile = 1 << 20

// readKeys reads the key files of an encrypted repository; nil for a plain
// one. A configured file that cannot be read is an error even where its key
// would not be needed: what is configured is meant.
func readKeys(e *config.Encryption, log *zap.Logger) (*repo.Keys, error) {
	if e == nil {
		return nil, nil
	}
	recipients, err := readKeyFile(e.RecipientsFile)
	if err != nil {
		return nil, err
	}
	identity, err := readSecretFile(e.IdentityFile, log)
	if err != nil {
		return nil, err
	}
	metadata, err := readSecretFile(e.MetadataIdentityFile, log)
	if err != nil {
		return nil, err
	}
	keys, err := repo.NewKeys(repo.KeyOptions{
		Recipients:         strings.Join(append(e.Recipients, recipients), "\n"),
		Identity:           identity,
		MetadataRecipients: strings.Join(e.MetadataRecipients, "\n"),
		MetadataIdentity:   metadata,
	})
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	return keys, nil
}

// readSecretFile is readKeyFile for private keys. That others can read it is a
// warning, not an error: Kubernetes mounts secrets for the group of the pod.
func readSecretFile(path string, log *zap.Logger) (string, error) {
	text, err := readKeyFile(path)
	if err != nil || path == "" {
		return text, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o044 != 0 {
		log.Warn("private key can be read by others than its owner: chmod 600",
			zap.String("file", path), zap.Stringer("mode", mode))
	}
	return text, nil
}

func readKeyFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	if len(b) > maxKeyFile {
		return "", fmt.Errorf("read key file %s: larger than 1 MiB", path)
	}
	return string(b), nil
}
