package cloud

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecret is far above any key or signature, in bytes.
const maxSecret = 64 << 10

// Secret reads a file that holds one value, and returns the value without the
// white space around it. Errors name the file, never what is in it.
func Secret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("read secret %s: longer than %d bytes", path, maxSecret)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("read secret %s: the file is empty", path)
	}
	return s, nil
}
