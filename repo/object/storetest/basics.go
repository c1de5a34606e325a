package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
)

func (s suite) roundTrip(t *testing.T, store object.Store) {
	const key, content = "some/where/deep", "the content"
	info := put(t, store, key, content)
	require.WithinDuration(t, time.Now(), info.Modified, s.clockSkew)

	require.Equal(t, content, get(t, store, key))

	stat, err := store.Stat(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, key, stat.Key)
	require.Equal(t, int64(len(content)), stat.Size)
	require.Equal(t, info.Version, stat.Version, "Put and Stat name the same version")
	require.WithinDuration(t, info.Modified, stat.Modified, time.Minute)

	var listed []object.Info
	require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
		listed = append(listed, i)
		return nil
	}))
	require.Len(t, listed, 1)
	require.Equal(t, key, listed[0].Key)
	require.Equal(t, int64(len(content)), listed[0].Size)
	require.WithinDuration(t, info.Modified, listed[0].Modified, time.Minute)
	if listed[0].Version != "" {
		require.Equal(t, info.Version, listed[0].Version)
	}
}

func (s suite) overwrite(t *testing.T, store object.Store) {
	const key = "a/key"
	versions := map[string]bool{}
	// Shorter, longer, and the same length again: no rest of the old shows.
	for i, content := range []string{"first", "2", "the third one", "the 3rd again"} {
		versions[put(t, store, key, content).Version] = true
		require.Equal(t, content, get(t, store, key))
		stat, err := store.Stat(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, int64(len(content)), stat.Size)
		require.Len(t, versions, i+1, "every content has its own version")
	}
	require.Equal(t, []string{key}, keys(t, store, "", ""))
}

func (s suite) absent(t *testing.T, store object.Store) {
	put(t, store, "there/is/one", "x")
	for _, key := range []string{"nothing", "there/is/on", "there/is/one2", "there/is/two", "there/was/one"} {
		requireAbsent(t, store, key)
	}
	_, err := store.Get(t.Context(), "nothing", 0, 0)
	require.ErrorIs(t, err, object.ErrNotFound)
	_, err = store.Get(t.Context(), "nothing", 5, 5)
	require.ErrorIs(t, err, object.ErrNotFound)
	require.Empty(t, keys(t, store, "there/was", ""))

	// A directory of a file system is not an object.
	requireAbsent(t, store, "there")
	requireAbsent(t, store, "there/is")
}

func (s suite) empty(t *testing.T, store object.Store) {
	info := put(t, store, "nothing", "")
	require.Zero(t, info.Size)
	require.Empty(t, get(t, store, "nothing"))
	stat, err := store.Stat(t.Context(), "nothing")
	require.NoError(t, err)
	require.Zero(t, stat.Size)
	require.Equal(t, []string{"nothing"}, keys(t, store, "", ""))

	// An empty object is there: it takes the key.
	_, err = store.Put(t.Context(), "nothing", strings.NewReader("x"), object.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, object.ErrExists)

	// Of unknown size and not seekable.
	info, err = store.Put(t.Context(), "nothing2", plain{strings.NewReader("")}, object.PutOptions{IfAbsent: true})
	require.NoError(t, err)
	require.Zero(t, info.Size)

	for _, r := range [][2]int64{{0, -1}, {0, 0}, {0, 10}} {
		b, err := read(t.Context(), store, "nothing", r[0], r[1])
		require.NoError(t, err, "range %v", r)
		require.Empty(t, b)
	}
	_, err = store.Get(t.Context(), "nothing", 1, -1)
	require.ErrorIs(t, err, object.ErrBadRange)
}

func (s suite) delete(t *testing.T, store object.Store) {
	require.NoError(t, store.Delete(t.Context()))
	require.NoError(t, store.Delete(t.Context(), "never/was"))

	put(t, store, "dir/a", "a")
	put(t, store, "dir/b", "b")
	put(t, store, "dir2/c", "c")
	require.NoError(t, store.Delete(t.Context(), "dir/a"))
	requireAbsent(t, store, "dir/a")
	require.Equal(t, []string{"dir/b", "dir2/c"}, keys(t, store, "", ""))

	// Present, absent and twice the same, in one call.
	require.NoError(t, store.Delete(t.Context(), "dir/b", "dir/a", "no/such", "dir/b", "dir2"))
	require.Equal(t, []string{"dir2/c"}, keys(t, store, "", ""))

	// A key can be used again after its deletion, also with IfAbsent.
	_, err := store.Put(t.Context(), "dir/b", strings.NewReader("again"), object.PutOptions{IfAbsent: true, Size: 5})
	require.NoError(t, err)
	require.Equal(t, "again", get(t, store, "dir/b"))

	// A bad key is named, and does not keep the others.
	err = store.Delete(t.Context(), "dir/b", "../x", "dir2/c")
	require.ErrorIs(t, err, object.ErrBadKey)
	require.ErrorContains(t, err, "../x")
	require.Empty(t, keys(t, store, "", ""))

	// A directory that became empty may become an object, and the reverse.
	put(t, store, "dir", "now an object")
	require.Equal(t, "now an object", get(t, store, "dir"))
	require.NoError(t, store.Delete(t.Context(), "dir"))
	put(t, store, "dir/again", "a directory")
	require.Equal(t, []string{"dir/again"}, keys(t, store, "", ""))
}

func (s suite) oddKeys(t *testing.T, store object.Store) {
	odd := []string{
		"k", "with space", " leading", "trailing ", "two  spaces/ /x",
		"100%", "%41", "%2F/x", "%2e%2e/x", "a+b", "a b", "a%20b", "q?x=y&z", "#hash", "a#b/c",
		"semi;colon", "co:lon", "'quote\"", "<tag>", "a|b", "a*b", "[x]", "{y}", "~tilde", "^", "`", "$HOME", "!",
		"=", "@at", ",", "(x)", "&amp;", "-dash", "--", "_", ".hidden", "..x", "...x", "a/.b/c", "a/..b",
		"UPPER", "upper", "Upper", // three keys
		"000000010000000000000001", "000000010000000000000001.00000028.backup", "x.partial",
		"deep/" + strings.Repeat("d/", 40) + "end",
	}
	for _, length := range []int{object.MaxPartLength, s.maxKey - 1, s.maxKey} {
		odd = append(odd, fmt.Sprintf("%d", length)+longKey(length)[3:])
	}
	for i, key := range odd {
		require.NoError(t, object.CheckKey(key))
		put(t, store, key, fmt.Sprintf("content %d of %s", i, key))
	}
	for i, key := range odd {
		require.Equal(t, fmt.Sprintf("content %d of %s", i, key), get(t, store, key))
		stat, err := store.Stat(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, key, stat.Key)
		require.Equal(t, []string{key}, keys(t, store, key, "")[:1])
	}
	require.ElementsMatch(t, odd, keys(t, store, "", ""))
	require.IsIncreasing(t, keys(t, store, "", ""))
	for i, key := range odd {
		require.NoError(t, store.Delete(t.Context(), key))
		require.ElementsMatch(t, odd[i+1:], keys(t, store, "", ""), "after deleting %q", key)
	}
}

// longKey returns a key of n bytes with parts as long as they may be.
func longKey(n int) string {
	b := []byte(strings.Repeat("k", n))
	for i := object.MaxPartLength; i < n-1; i += object.MaxPartLength + 1 {
		b[i] = '/'
	}
	return string(b)
}

func (s suite) badKeys(t *testing.T, store object.Store) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a.", "a./b", "a/b.",
		`a\b`, "a\nb", "a\x00b", "a\x7fb", "ä", "a/日本", "\xff",
		longKey(object.MaxKeyLength + 1), strings.Repeat("p", object.MaxPartLength+1),
	} {
		_, err := store.Put(t.Context(), key, strings.NewReader("x"), object.PutOptions{})
		require.ErrorIs(t, err, object.ErrBadKey, "put %q", key)
		_, err = store.Get(t.Context(), key, 0, -1)
		require.ErrorIs(t, err, object.ErrBadKey, "get %q", key)
		_, err = store.Stat(t.Context(), key)
		require.ErrorIs(t, err, object.ErrBadKey, "stat %q", key)
		require.ErrorIs(t, store.Delete(t.Context(), key), object.ErrBadKey, "delete %q", key)
	}
	// As the prefix of a List they match nothing, except the empty one.
	put(t, store, "a/b", "x")
	for _, prefix := range []string{"/", "/a", "a//", "..", "../", "../a", "./a", "a/.", "a/../", `a\`, "ä"} {
		require.Empty(t, keys(t, store, prefix, ""), "list %q", prefix)
	}
	require.Equal(t, []string{"a/b"}, keys(t, store, "", ""))
}

func (s suite) contradictingOptions(t *testing.T, store object.Store) {
	v := put(t, store, "k", "old").Version
	_, err := store.Put(t.Context(), "k", strings.NewReader("new"), object.PutOptions{IfAbsent: true, IfMatch: v})
	require.Error(t, err)
	require.True(t, object.IsPermanent(err))
	_, err = store.Put(t.Context(), "k", strings.NewReader("new"), object.PutOptions{Size: -1})
	require.ErrorIs(t, err, object.ErrSize)
	require.Equal(t, "old", get(t, store, "k"))
}

func (s suite) ranges(t *testing.T, store object.Store) {
	const content = "0123456789"
	put(t, store, "digits", content)
	for _, r := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, content},
		{0, 10, content},
		{0, 11, content},
		{0, 1 << 40, content},
		{0, 1, "0"},
		{0, 0, ""},
		{1, -1, "123456789"},
		{1, 3, "123"},
		{5, 0, ""},
		{9, 1, "9"},
		{9, 2, "9"},
		{9, -1, "9"},
		{9, 0, ""},
		{3, 7, "3456789"},
		{3, 8, "3456789"},
		{10, -1, ""},
		{10, 0, ""},
		{10, 1, ""},
		{10, 1 << 62, ""},
		{1, 1<<63 - 1, "123456789"},
	} {
		b, err := read(t.Context(), store, "digits", r.offset, r.length)
		require.NoError(t, err, "range %d+%d", r.offset, r.length)
		require.Equal(t, r.want, string(b), "range %d+%d", r.offset, r.length)
	}
	for _, r := range [][2]int64{{11, -1}, {11, 0}, {11, 1}, {1 << 40, 1}, {-1, -1}, {-1, 5}, {0, -2}} {
		_, err := store.Get(t.Context(), "digits", r[0], r[1])
		require.ErrorIs(t, err, object.ErrBadRange, "range %v", r)
	}

	// A reader may be closed before its end, and read slowly.
	for range 50 {
		r, err := store.Get(t.Context(), "digits", 0, -1)
		require.NoError(t, err)
		one := make([]byte, 1)
		n, err := r.Read(one)
		require.NoError(t, err)
		require.Equal(t, "0", string(one[:n]))
		require.NoError(t, r.Close())
	}
}
