package archive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/walkeep/walkeep/repo"
)

// roomyWriter refuses more than there is room for, and remembers whether it was
// this machine's disk that failed.
type roomyWriter struct {
	f    *os.File
	room int64 // below 0: there was more
	err  error
}

var errTooLong = errors.New("longer than it can be")

func (w *roomyWriter) Write(b []byte) (int, error) {
	if w.room -= int64(len(b)); w.room < 0 {
		return 0, errTooLong
	}
	n, err := w.f.Write(b)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Has implements [Prober].
func (s sibling) Has(ctx context.Context, name repo.WALName) (bool, error) {
	_, err := s.e.WALHead(ctx, name)
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// Has implements [Prober].
func (s dirSource) Has(_ context.Context, name repo.WALName) (bool, error) {
	_, err := os.Stat(filepath.Join(s.dir, name.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
