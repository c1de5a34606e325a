package gcs

import "github.com/walkeep/walkeep/repo/object"

// SetPage makes listings of s come in pages of n, so that a test sees several.
func SetPage(s object.Store, n int) { s.(*store).page = n }
