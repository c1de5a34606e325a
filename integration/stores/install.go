package stores

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Locate finds the program of a server in .cache of the checkout that holds the
// working directory.
func Locate(name string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{".cache/bin", ".cache/npm/node_modules/.bin"} {
		path := filepath.Join(root, filepath.FromSlash(dir), name)
		if st, err := os.Stat(path); err == nil && !st.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed below %s: run: make tools", name, filepath.Join(root, ".cache"))
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/walkeep/walkeep\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside a walkeep checkout, where the object stores are installed")
		}
		dir = up
	}
}
