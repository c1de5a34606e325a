package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

// million writes and reads a manifest of n entries and returns how long both
// took and the largest heap seen.
func million(t testing.TB, e *Epoch, n int) (write, read time.Duration, heap uint64) {
	ctx := context.Background()
	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	p, err := b.NewPack(ctx)
	require.NoError(t, err)
	_, err = p.Append(make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, p.Close())
	watch := func(i int) {
		if i%(n/20) == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap = max(heap, m.HeapAlloc)
		}
	}
	start := time.Now()
	const perDir = 1000
	for i := range n {
		watch(i)
		if i%perDir == 0 {
			require.NoError(t, b.AddFile(FileEntry{Path: fmt.Sprintf("d%06d", i/perDir), Type: Directory, Mode: 0o700, MTime: testTime}))
		}
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		c := Chunk{Offset: int64(i % 1000 * 1000), Stored: 900, Plain: 8192, CRC: uint32(sum[0])<<24 | uint32(i)}
		copy(c.XXH3[:], sum[:])
		require.NoError(t, b.AddFile(FileEntry{
			Path: fmt.Sprintf("d%06d/%06d", i/perDir, i), Mode: 0o600, UID: 26, GID: 26, Owner: "postgres", Group: "postgres",
			MTime: testTime.Add(time.Duration(i) * time.Millisecond), Size: 8192, CRC: c.CRC, Chunks: []Chunk{c}, Detect: "whole",
		}))
	}
	s, err := b.Commit(ctx, testHeader(), testSummary())
	require.NoError(t, err)
	write = time.Since(start)
	watch(0)

	start = time.Now()
	m, err := e.OpenManifest(ctx, s)
	require.NoError(t, err)
	defer m.Close()
	for i := 0; ; i++ {
		watch(i)
		if _, err := m.Next(); err == io.EOF {
			require.Equal(t, n+n/perDir, i)
			break
		}
		require.NoError(t, err)
	}
	return write, time.Since(start), heap
}

// A million files take no more memory than a few.
func TestMillionFiles(t *testing.T) {
	dir := t.TempDir()
	for _, keys := range []*Keys{nil, newTestKeys(t).keys(t, nil)} {
		sub, err := os.MkdirTemp(dir, "")
		require.NoError(t, err)
		store, err := filesystem.New(filesystem.Options{Path: sub})
		require.NoError(t, err)
		write, read, heap := million(t, testEpoch(t, testRepo(t, store, keys, codec.Codec{})), 1_000_000)
		t.Logf("encrypted %v: written in %v, read in %v, heap %d MiB", keys != nil, write, read, heap>>20)
		require.Less(t, heap, uint64(64<<20))
	}
}

// craft stores a backup whose manifest is the given lines, as if it had been
// written so, and opens it.
func craft(t testing.TB, lines ...string) (*ManifestReader, error) {
	ctx := context.Background()
	store := newMemory()
	e := testEpoch(t, testRepo(t, store, nil, codec.Codec{}))
	var b bytes.Buffer
	w, err := codec.NewWriter(&b, e.r.manifestCodec)
	require.NoError(t, err)
	_, err = io.WriteString(w, strings.Join(lines, "\n")+"\n")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	put(t, store, e.manifestKey(testLabel), b.Bytes())
	s := testSummary()
	s.Label, s.Type, s.SystemID = testLabel, Full, testSystem
	sum := sha256.Sum256(b.Bytes())
	s.Manifest = ManifestRef{Size: int64(b.Len()), SHA256: hex.EncodeToString(sum[:])}
	return e.OpenManifest(ctx, s)
}

const (
	craftHeader = `{"kind":"header","format":1,"label":"20261122-010000F","type":"full","cluster":"hippo","system_identifier":"7212345678901234567","tablespaces":[{"oid":16400,"path":"/srv/fast"},{"oid":16401,"path":""}]}`
	craftPack   = `{"kind":"pack","id":0,"label":"20261122-010000F","number":0,"size":1000,"plain":1000,"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}`
	craftChunk  = `[0,0,1000,10,"00000000000000000000000000000000","00000000"]`
)

func craftEnd(files, dirs, links, size int) string {
	return fmt.Sprintf(`{"kind":"end","packs":1,"files":%d,"directories":%d,"symlinks":%d,"bytes":%d,"bad_pages":0}`, files, dirs, links, size)
}

func line(path, more string) string {
	return fmt.Sprintf(`{"kind":"file","path":%q,"mode":"0600","mtime":"2026-11-22T01:00:00Z"%s}`, path, more)
}

func readAll(t testing.TB, lines ...string) error {
	m, err := craft(t, lines...)
	if err != nil {
		return err
	}
	defer m.Close()
	for {
		if _, err := m.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			_, again := m.Next()
			require.Equal(t, err, again)
			return err
		}
	}
}

func TestManifestRules(t *testing.T) {
	file := func(path string) string { return line(path, `,"type":"file"`) }
	dir := func(path string) string { return line(path, `,"type":"dir"`) }
	link := func(path, to string) string { return line(path, fmt.Sprintf(`,"type":"symlink","link":%q`, to)) }
	data := func(more string) string { return line("f", `,"type":"file"`+more) }

	for name, lines := range map[string][]string{
		"files":         {dir("."), file("a"), dir("b"), file("b/c"), file("b.c"), file("bb"), craftEnd(4, 2, 0, 0)},
		"tablespace":    {dir("pg_tblspc"), link("pg_tblspc/16400", "/srv/fast"), dir("pg_tblspc/16400/PG_15"), file("pg_tblspc/16400/PG_15/1"), craftEnd(1, 2, 1, 0)},
		"inner link":    {dir("a"), link("a/l", "b/c"), craftEnd(0, 1, 1, 0)},
		"last files":    {dir("global"), file("z"), file("backup_label"), file("tablespace_map"), file("global/pg_control"), craftEnd(4, 1, 0, 0)},
		"chunk":         {data(`,"size":10,"chunks":[` + craftChunk + `]`), craftEnd(1, 0, 0, 10)},
		"extents":       {data(`,"size":12,"chunks":[` + craftChunk + `],"extents":[[0,3,0,7],[3,9,0,0]]`), craftEnd(1, 0, 0, 12)},
		"unknown":       {data(`,"later":{"a":[1,-2.5e3,null,true,{"b":"c\n"}],"x":"y"},"size":0`), craftEnd(1, 0, 0, 0)},
		"spaces":        {`{"kind":"file", "path" : "a\u00e9\ud83d\ude00\t" , "size":0 }`, craftEnd(1, 0, 0, 0)},
		"path in bytes": {`{"kind":"file","path_b64":"/w=="}`, craftEnd(1, 0, 0, 0)},
	} {
		require.NoError(t, readAll(t, append([]string{craftHeader, craftPack}, lines...)...), name)
	}

	for name, lines := range map[string][]string{
		"parent":             {file("../a")},
		"parent inside":      {dir("a"), file("a/../../b")},
		"absolute":           {file("/etc/passwd")},
		"empty":              {file("")},
		"not clean":          {dir("a"), file("a//b")},
		"dot":                {dir("a"), file("a/.")},
		"slash at end":       {dir("a/")},
		"null":               {`{"kind":"file","path":"a\u0000"}`},
		"root as file":       {file(".")},
		"root late":          {file("a"), dir(".")},
		"twice":              {file("a"), file("a")},
		"order":              {file("b"), file("a")},
		"unlisted parent":    {file("a/b")},
		"file as parent":     {file("a"), file("a/b")},
		"left parent":        {dir("a"), file("b"), file("a/c")},
		"link as parent":     {link("a", "b"), file("a/c")},
		"absolute link":      {link("a", "/etc")},
		"link outwards":      {dir("a"), link("a/l", "../..")},
		"link to dot":        {link("a", ".")},
		"empty link":         {link("a", "")},
		"tablespace unknown": {dir("pg_tblspc"), link("pg_tblspc/5", "/etc")},
		"tablespace other":   {dir("pg_tblspc"), link("pg_tblspc/16400", "/etc")},
		"tablespace inside":  {dir("pg_tblspc"), link("pg_tblspc/16401", "/etc")},
		"tablespace up":      {dir("pg_tblspc"), link("pg_tblspc/16400", "../x")},
		"link of file":       {line("a", `,"type":"file","link":"b"`)},
		"label first":        {file("backup_label"), file("c")},
		"control too early":  {dir("global"), file("global/pg_control"), file("backup_label")},
		"control, no dir":    {file("global/pg_control")},
		"control as link":    {dir("global"), link("global/pg_control", "x")},
		"type":               {line("a", `,"type":"fifo"`)},
		"mode":               {`{"kind":"file","path":"a","mode":"17777"}`},
		"mode text":          {`{"kind":"file","path":"a","mode":"rwx"}`},
		"negative":           {data(`,"size":-1`)},
		"huge":               {data(`,"size":9223372036854775808`)},
		"fraction":           {data(`,"size":1.5`)},
		"leading zero":       {data(`,"size":00`)},
		"size wrong":         {data(`,"size":11,"chunks":[` + craftChunk + `]`)},
		"no such pack":       {data(`,"size":10,"chunks":[[1,0,1000,10,"00000000000000000000000000000000","00000000"]]`)},
		"beyond pack":        {data(`,"size":10,"chunks":[[0,1,1000,10,"00000000000000000000000000000000","00000000"]]`)},
		"offset overflow":    {data(`,"size":10,"chunks":[[0,9223372036854775807,1000,10,"00000000000000000000000000000000","00000000"]]`)},
		"chunk too large":    {data(`,"size":1048577,"chunks":[[0,0,1000,1048577,"00000000000000000000000000000000","00000000"]]`)},
		"chunk empty":        {data(`,"size":0,"chunks":[[0,0,1000,0,"00000000000000000000000000000000","00000000"]]`)},
		"digest short":       {data(`,"size":10,"chunks":[[0,0,1000,10,"00","00000000"]]`)},
		"digest upper":       {data(`,"size":10,"chunks":[[0,0,1000,10,"AA000000000000000000000000000000","00000000"]]`)},
		"extent gap":         {data(`,"size":10,"chunks":[` + craftChunk + `],"extents":[[0,3,0,0],[4,6,0,0]]`)},
		"extent outside":     {data(`,"size":10,"chunks":[` + craftChunk + `],"extents":[[0,10,0,1]]`)},
		"extent chunk":       {data(`,"size":10,"chunks":[` + craftChunk + `],"extents":[[0,10,1,0]]`)},
		"extents empty":      {data(`,"size":10,"chunks":[` + craftChunk + `],"extents":[]`)},
		"bad pages":          {data(`,"bad_pages":[2,1]`)},
		"dir with content":   {line("a", `,"type":"dir","size":3`)},
		"time":               {`{"kind":"file","path":"a","mtime":"yesterday"}`},
		"not JSON":           {`{"kind":"file","path":"a"`},
		"two values":         {file("a") + "{}"},
		"deep":               {data(`,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100))},
		"base64":             {`{"kind":"file","path_b64":"!"}`},
		"surrogate":          {`{"kind":"file","path":"\ud800x"}`},
		"pack late":          {file("a"), craftPack},
		"kind":               {`{"kind":"other"}`},
		"no kind":            {`{"path":"a"}`},
		"counts":             {file("a"), craftEnd(2, 0, 0, 0)},
		"more":               {file("a"), craftEnd(1, 0, 0, 0), file("b")},
	} {
		err := readAll(t, append([]string{craftHeader, craftPack}, lines...)...)
		var damage *DamageError
		require.ErrorAs(t, err, &damage, name)
		require.Equal(t, "7212345678901234567/backup/20261122-010000F/manifest", damage.Key)
		require.NotContains(t, damage.Why, "too early", name)
	}
	err := readAll(t, craftHeader, craftPack, file("a"))
	require.ErrorContains(t, err, "too early")
	require.ErrorIs(t, err, ErrIntegrity)

	for name, lines := range map[string][]string{
		"empty":        {""},
		"no header":    {craftPack, craftEnd(0, 0, 0, 0)},
		"other label":  {strings.Replace(craftHeader, "-01", "-02", 1), craftEnd(0, 0, 0, 0)},
		"other system": {strings.Replace(craftHeader, "7212", "7213", 1)},
		"bad header":   {`{"kind":"header","format":"x"}`},
		"pack twice":   {craftHeader, craftPack, craftPack},
		"pack empty":   {craftHeader, strings.Replace(craftPack, "1000", "0", 2)},
		"pack label":   {craftHeader, strings.Replace(craftPack, "-010000F", "", 1)},
		"pack plain":   {craftHeader, strings.Replace(craftPack, `"plain":1000`, `"plain":999`, 1)},
		"pack digest":  {craftHeader, strings.Replace(craftPack, "0000\"", "00\"", 1)},
		"pack id":      {craftHeader, strings.Replace(craftPack, `"id":0`, `"id":-1`, 1)},
	} {
		require.ErrorIs(t, readAll(t, lines...), ErrIntegrity, name)
	}
	require.ErrorIs(t, readAll(t, strings.Replace(craftHeader, `"format":1`, `"format":2`, 1)), ErrMismatch)
}

// Lines longer than the reader's buffer.
func TestLongLine(t *testing.T) {
	chunks := strings.Repeat(craftChunk+",", 20000) + craftChunk
	data := line("f", `,"type":"file","size":200010,"chunks":[`+chunks+`]`)
	require.NoError(t, readAll(t, craftHeader, craftPack, data, craftEnd(1, 0, 0, 200010)))
}

func TestComparePaths(t *testing.T) {
	ordered := []string{"a", "a/b", "a/b/c", "a/b.c", "a/bb", "a-b", "a.b", "ab", "b"}
	for i := range ordered {
		for j := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			require.Equal(t, want, ComparePaths(ordered[i], ordered[j]), "%s %s", ordered[i], ordered[j])
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(strings.Join([]string{craftHeader, craftPack, line("a", `,"type":"dir"`), line("a/b", `,"type":"file","size":10,"chunks":[`+craftChunk+`]`), craftEnd(1, 1, 0, 10)}, "\n"))
	f.Add(strings.Join([]string{craftHeader, `{"kind":"file","path":"a\u00e9\ud83d\ude00","x":{"y":[1,"z"]}}`}, "\n"))
	r := testRepo(f, newMemory(), nil, codec.Codec{})
	f.Fuzz(func(t *testing.T, text string) {
		m := &ManifestReader{r: r, key: "manifest", want: Summary{Label: testLabel, SystemID: testSystem}, names: map[string]string{}}
		err := m.begin(strings.NewReader(text))
		for err == nil {
			var e FileEntry
			if e, err = m.Next(); err == nil {
				require.NoError(t, checkPath(e.Path))
				require.LessOrEqual(t, e.Size, int64(len(text))*MaxChunk)
			}
		}
		require.True(t, err == io.EOF || isAny(err, ErrIntegrity, ErrMismatch), "%v", err)
	})
}
