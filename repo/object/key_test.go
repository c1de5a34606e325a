package object_test

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

func TestCheckKey(t *testing.T) {
	part := strings.Repeat("p", object.MaxPartLength)
	for _, key := range []string{
		"a", "a/b", "a b", " ", "a/ /b", "%2e%2e", ".a", "..a", "a..b", "a.b", "-", "~", "!", "a:b", `"`, "*?",
		part, part + "/" + part, strings.Repeat("k/", (object.MaxKeyLength-1)/2) + "k",
		"000000010000000000000001.00000028.backup",
	} {
		require.NoError(t, object.CheckKey(key), "%q", key)
	}
	for key, why := range map[string]string{
		"": "empty", "/": "empty part", "/a": "empty part", "a/": "empty part", "a//b": "empty part",
		".": "ends in '.'", "..": "ends in '.'", "a/../b": "ends in '.'", "a.": "ends in '.'", "a./b": "ends in '.'",
		`a\b`: "backslash", "a\nb": "printable", "a\x00": "printable", "\x7f": "printable", "ä": "printable", "a/\xff": "printable",
		part + "p": "part is longer than 255", "a/" + part + "p/b": "part is longer than 255",
		strings.Repeat("k/", object.MaxKeyLength/2) + "k": "longer than 700",
	} {
		err := object.CheckKey(key)
		require.ErrorIs(t, err, object.ErrBadKey, "%q", key)
		require.ErrorContains(t, err, why, "%q", key)
	}
}

// FuzzCheckKey checks what the rules are for: a key that passes is a path below
// any directory, under its own name only, and the same in a URL.
func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"a/b", "../x", "a/./b", "/abs", "a//b", "x.", "%2e%2e/x", strings.Repeat("a", 300), "\xff", ".uploads."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if object.CheckKey(key) != nil {
			return
		}
		require.NotEmpty(t, key)
		require.LessOrEqual(t, len(key), object.MaxKeyLength)
		require.Equal(t, key, path.Clean(key), "has one spelling")
		require.Equal(t, "/root/"+key, path.Join("/root", key), "stays below the root")
		for _, part := range strings.Split(key, "/") {
			require.NotContains(t, []string{"", ".", ".."}, part)
			require.False(t, strings.HasSuffix(part, "."))
			require.LessOrEqual(t, len(part), object.MaxPartLength)
		}
		for _, c := range []byte(key) {
			require.True(t, c >= ' ' && c <= '~' && c != '\\')
		}
		require.NoError(t, object.CheckKey("prefix/"+key[:min(len(key), 200)]+"x"))
	})
}

func TestCheckPut(t *testing.T) {
	require.NoError(t, object.CheckPut("k", object.PutOptions{}))
	require.NoError(t, object.CheckPut("k", object.PutOptions{IfAbsent: true, Size: 1}))
	require.NoError(t, object.CheckPut("k", object.PutOptions{IfMatch: "v"}))
	require.ErrorIs(t, object.CheckPut("k.", object.PutOptions{}), object.ErrBadKey)
	require.ErrorIs(t, object.CheckPut("k", object.PutOptions{Size: -1}), object.ErrSize)
	err := object.CheckPut("k", object.PutOptions{IfAbsent: true, IfMatch: "v"})
	require.Error(t, err)
	require.True(t, object.IsPermanent(err))
}
