package config

import (
	"fmt"

	"github.com/goccy/go-yaml"
)

// YAML is the configuration in effect, defaults included, as a file that Parse
// accepts. It holds no secrets, because the file cannot.
func (c *Config) YAML() ([]byte, error) {
	b, err := yaml.MarshalWithOptions(c, yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return b, nil
}
