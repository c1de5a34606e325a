package backup

// Progress is told how a backup goes. Its methods are called from many
// goroutines and must not block.
type Progress interface {
	// Stage says what the backup does from now on, in a few words for people.
	Stage(what string)
	// Total says how many bytes there are to copy. It comes late, when the
	// copying has begun, and is an estimate: files grow.
	Total(bytes int64)
	// Add says that so many more bytes were copied.
	Add(bytes int64)
}

type noProgress struct{}

func (noProgress) Stage(string) {}
func (noProgress) Total(int64)  {}
func (noProgress) Add(int64)    {}
