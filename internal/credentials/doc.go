// Package credentials reads what proves who is who on a connection: our
// certificate, authorities, bearer tokens. All of it is in files that are
// replaced while the process runs, so they are looked at for every handshake and
// every request, and read again when they changed.
//
// A certificate that cannot be read leaves the one before in place: certificate
// and key are two files, and between the two the pair does not match. Tokens
// that cannot be read let nobody in: a token that was taken out must stay out.
package credentials

import (
	"os"
	"time"
)

// stamp tells whether a file was changed. Files in a Kubernetes secret are
// links to a directory that is replaced, so the inode counts too.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

// stamps are those of the last look, by path.
type stamps map[string]stamp

// changed reports whether one of the files is another than at the last call.
func (s stamps) changed(paths ...string) (changed bool) {
	for _, p := range paths {
		if p == "" {
			continue
		}
		var now stamp
		if i, err := os.Stat(p); err == nil {
			now = stamp{i.ModTime(), i.Size(), i}
		}
		was, known := s[p]
		same := known && was.modified.Equal(now.modified) && was.size == now.size &&
			(was.info == nil) == (now.info == nil) && (now.info == nil || os.SameFile(was.info, now.info))
		s[p] = now
		changed = changed || !same
	}
	return changed
}
