package dial

import (
	"encoding/json"

	"github.com/walkeep/walkeep/config"
)

// Origin names the cluster and the repositories of a configuration: two that
// could lead to different content have different ones.
func Origin(c *config.Config) string {
	b, err := json.Marshal(struct {
		Cluster string
		Repos   []config.Repo
	}{c.Cluster, c.Repos})
	if err != nil {
		// No field can fail; and what is shared by mistake is verified.
		return c.Cluster
	}
	return string(b)
}
