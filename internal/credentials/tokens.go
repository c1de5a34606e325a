package credentials

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// MinToken is the shortest token that is accepted, bytes.
const MinToken = 16

// Tokens are the bearer tokens of a file, one a line, so that a new one can be
// added before the old one goes. Empty lines, and those that begin with #, are
// none.
type Tokens struct {
	path string
	log  *zap.Logger

	mu      sync.Mutex // guards what follows
	stamps  stamps
	digests [][sha256.Size]byte
}

// NewTokens reads the file.
func NewTokens(path string, log *zap.Logger) (*Tokens, error) {
	if log == nil {
		log = zap.NewNop()
	}
	t := &Tokens{path: path, log: log, stamps: stamps{}}
	t.stamps.changed(path)
	var err error
	if t.digests, err = loadTokens(path); err != nil {
		return nil, err
	}
	return t, nil
}

// Has reports whether token is one of the file as it is now. It takes the same
// time whatever token is.
func (t *Tokens) Has(token string) bool {
	sum := sha256.Sum256([]byte(token))
	found := 0
	for _, want := range t.now() {
		found |= subtle.ConstantTimeCompare(want[:], sum[:])
	}
	return found == 1
}

// now is the tokens of now; none if they cannot be read.
func (t *Tokens) now() [][sha256.Size]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stamps.changed(t.path) {
		digests, err := loadTokens(t.path)
		if err != nil {
			t.log.Error("tokens cannot be read; nobody is let in with one", zap.Error(err))
		}
		t.digests = digests
	}
	return t.digests
}

// loadTokens keeps digests only: comparing them takes the same time whatever
// was sent, and no token is left in memory.
func loadTokens(path string) (digests [][sha256.Size]byte, err error) {
	err = eachToken(path, func(token string) error {
		if len(token) < MinToken {
			return fmt.Errorf("read tokens from %s: one has less than %d characters", path, MinToken)
		}
		digests = append(digests, sha256.Sum256([]byte(token)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(digests) == 0 {
		return nil, fmt.Errorf("read tokens from %s: there is none", path)
	}
	return digests, nil
}

func eachToken(path string, fn func(token string) error) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := fn(line); err != nil {
			return err
		}
	}
	return nil
}

// FirstToken is the first token of a file: the one to send.
func FirstToken(path string) (string, error) {
	first := ""
	err := eachToken(path, func(token string) error {
		if first == "" {
			first = token
		}
		return nil
	})
	if err == nil && first == "" {
		err = fmt.Errorf("read tokens from %s: there is none", path)
	}
	return first, err
}

// Bearer is the token that a request carries. false: it carries none.
func Bearer(r *http.Request) (token string, ok bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}
