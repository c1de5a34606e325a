package config

import "os"

// DefaultPath is where the configuration is when nothing says otherwise.
const DefaultPath = "/etc/walkeep/walkeep.yaml"

// Path is the file to load: that of the --config flag, else $WALKEEP_CONFIG,
// else DefaultPath.
func Path(flag string) string {
	if flag != "" {
		return flag
	}
	if p := os.Getenv("WALKEEP_CONFIG"); p != "" {
		return p
	}
	return DefaultPath
}
