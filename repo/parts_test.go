package repo

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestPartsReader(t *testing.T) {
	for _, parts := range [][]string{{}, {""}, {"a"}, {"", "abc", "", "", "defg", "h", ""}} {
		var all []byte
		var list [][]byte
		for _, p := range parts {
			all, list = append(all, p...), append(list, []byte(p))
		}
		require.NoError(t, iotest.TestReader(newPartsReader(list), all))
		r := newPartsReader(list)
		require.EqualValues(t, len(all), r.Size())
		for at := range len(all) + 1 {
			_, err := r.Seek(int64(at), io.SeekStart)
			require.NoError(t, err)
			var out bytes.Buffer
			n, err := r.WriteTo(&out)
			require.NoError(t, err)
			require.EqualValues(t, len(all)-at, n)
			require.Equal(t, string(all[at:]), out.String())
		}
		_, err := r.Seek(1, io.SeekEnd)
		require.Error(t, err)
	}
}
