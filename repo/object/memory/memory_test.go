package memory_test

import (
	"testing"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) object.Store { return memory.New() })
}
