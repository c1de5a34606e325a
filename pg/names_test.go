package pg

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSegmentNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  SegmentSize
		start LSN
	}{
		{"000000010000000A000000FF", 16 << 20, 0xAFF000000},
		{"000000010000000000000001", 16 << 20, 0x1000000},
		{"000000010000000000000FFF", 1 << 20, 0xFFF00000},
		{"000000010000000100000000", 1 << 20, 0x100000000},
		{"00000003000000FF0000003F", 64 << 20, 0xFFFC000000},
		{"FFFFFFFFFFFFFFFF00000003", 1 << 30, 0xFFFFFFFFC0000000},
	} {
		name, err := ParseSegmentName(c.name)
		require.NoError(t, err)
		n, err := name.Number(c.size)
		require.NoError(t, err)
		require.Equal(t, c.start, c.size.Start(n))
		require.Equal(t, name, c.size.Name(name.Timeline(), n))
		require.Equal(t, n, c.size.SegmentOf(c.start+LSN(c.size)-1))
	}
	name, err := ParseSegmentName("000000010000000A00000100")
	require.NoError(t, err)
	_, err = name.Number(16 << 20)
	require.Error(t, err, "no such segment of 16 MiB")

	for _, bad := range []string{"", "00000001000000000000000", "00000000000000000000000A", "00000001000000000000000a", "000000010000000000000001 "} {
		_, err := ParseSegmentName(bad)
		require.Error(t, err, bad)
	}
	require.False(t, SegmentSize(3<<20).Valid())
	require.False(t, SegmentSize(1<<19).Valid())
	require.False(t, SegmentSize(1<<31).Valid())
}

func TestKindOf(t *testing.T) {
	for name, kind := range map[string]FileKind{
		"000000010000000A000000FF":                 FileSegment,
		"000000010000000A000000FF.partial":         FilePartial,
		"00000002.history":                         FileHistory,
		"000000010000000A000000FF.00000028.backup": FileBackupLabel,
		"000000010000000A000000FF.backup":          FileUnknown,
		"00000002.history.partial":                 FileUnknown,
		"00000000.history":                         FileUnknown,
		"archive_status":                           FileUnknown,
		"../000000010000000A000000FF":              FileUnknown,
		"":                                         FileUnknown,
	} {
		require.Equal(t, kind, KindOf(name), name)
	}
}

func TestLSNAndSystemIDText(t *testing.T) {
	var v struct {
		LSN LSN
		ID  SystemID
	}
	const text = `{"LSN":"16/B374D848","ID":"7400000000000000001"}`
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	require.Equal(t, LSN(0x16B374D848), v.LSN)
	b, err := json.Marshal(v)
	require.NoError(t, err)
	require.Equal(t, text, string(b))
	for _, bad := range []string{"", "/", "0/", "/0", "0/0/0", "+1/0", "0x1/0", "123456789/0"} {
		_, err := ParseLSN(bad)
		require.Error(t, err, bad)
	}
}
