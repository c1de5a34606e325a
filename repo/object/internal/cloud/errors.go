package cloud

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// TokenKey is the name of the metadata entry by which a writer knows its own
// object again, see NewToken. Azure wants names that are identifiers.
const TokenKey = "walkeepput"

// NewToken returns a random mark for one Put. It is stored as metadata with the
// object: when a request was carried out but its answer was lost, the repeated
// request finds the key taken, and the mark tells whether by ourselves.
func NewToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// FromStatus adds to err what an HTTP status says about trying again. It is for
// what the driver did not recognise by the store's own error code. header may
// be nil.
func FromStatus(err error, status int, header http.Header) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return fmt.Errorf("%w: %w", object.ErrDenied, err)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return object.Throttled(err, retryAfter(header, time.Now()))
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return err
	}
	if after := retryAfter(header, time.Now()); after > 0 && status >= 500 {
		return object.Throttled(err, after)
	}
	if status >= 300 && status < 500 || status == http.StatusNotImplemented {
		return object.Permanent(err)
	}
	return err
}

// retryAfter reads the header in both its forms, seconds and date, and those of
// Azure and AWS in milliseconds; 0 when it is absent or makes no sense.
func retryAfter(header http.Header, now time.Time) time.Duration {
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms", "X-Amz-Retry-After"} {
		if ms, err := strconv.ParseUint(header.Get(name), 10, 32); err == nil {
			return time.Duration(ms) * time.Millisecond
		}
	}
	v := header.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 20); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
