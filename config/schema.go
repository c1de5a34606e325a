package config

import (
	_ "embed"
)

//go:embed schema.json
var schemaJSON []byte

// Schema is the JSON schema of the configuration file. It is made from the
// types of this package by its tests (go test ./config -update), which also
// fail when it is out of step.
func Schema() []byte { return schemaJSON }
