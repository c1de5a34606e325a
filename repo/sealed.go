package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Sealed JSON is how small objects are written: one line of JSON, then a line
// with the SHA-256 of the first line (newline included) in hex. People can read it, and
// "head -n 1 object | sha256sum" checks it.

// digestLine is the length of the second line.
const digestLine = 2*sha256.Size + 1

// seal encodes v.
func seal(v any) ([]byte, error) {
	line, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	line = append(line, '\n')
	sum := sha256.Sum256(line)
	return append(hex.AppendEncode(line, sum[:]), '\n'), nil
}

// unseal verifies b and decodes it into v. Keys that v does not know are
// ignored: a later minor addition stays readable.
func unseal(b []byte, v any) error {
	line := len(b) - digestLine
	if line < 3 || b[line-1] != '\n' || b[len(b)-1] != '\n' || bytes.IndexByte(b, '\n') != line-1 {
		return errors.New("not a line of JSON and a line with its digest")
	}
	sum := sha256.Sum256(b[:line])
	if string(b[line:len(b)-1]) != hex.EncodeToString(sum[:]) {
		return errors.New("its digest does not match")
	}
	if err := json.Unmarshal(b[:line-1], v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}
