package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/filesystem"
)

var update = flag.Bool("update", false, "rewrite the examples in FORMAT.md")

// exampleFiles are the files of the backup in FORMAT.md.
func exampleFiles() []testFile {
	return []testFile{
		{path: "."},
		{path: "PG_VERSION", content: []byte("15\n")},
		{path: "base"},
		{path: "base/5"},
		{path: "base/5/1259", content: make([]byte, 16384)},
		{path: "caf\xe9", content: []byte{}},
		{path: "global"},
		{path: "pg_tblspc"},
		{path: "pg_tblspc/16400", link: "/srv/fast"},
		{path: "backup_label", content: []byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n")},
		{path: "global/pg_control", content: make([]byte, 8192)},
	}
}

// example makes the repository that FORMAT.md shows. It uses the codec none,
// whose bytes do not depend on the version of a compressor.
func example(t *testing.T) (*Repository, object.Store) {
	ctx := context.Background()
	store := newMemory()
	r := testRepo(t, store, nil, codec.Codec{Name: codec.None})
	r.manifestCodec = r.codec
	require.NoError(t, r.Init(ctx))
	e, err := r.EnsureEpoch(ctx, EpochInfo{SystemID: testSystem, PGMajor: 15, SegmentSize: 16 << 20})
	require.NoError(t, err)

	name := SegmentFile("000000010000000000000002")
	first, last := testTime.Add(time.Second), testTime.Add(42*time.Second+123456*time.Microsecond)
	content := make([]byte, 16<<20)
	putWAL(t, e, name, content, func(h *WALHead) {
		h.SegmentSize, h.Start, h.ValidTo = 16<<20, 0x2000000, 0x3000000
		h.FirstCommit, h.LastCommit, h.Commits, h.MinXID, h.MaxXID = &first, &last, 118, 740, 857
		h.RestorePoints = []RestorePoint{{Name: "before-upgrade", LSN: 0x2345678, Time: last}}
	})
	putWAL(t, e, HistoryFile(2), []byte("1\t0/3000148\tno recovery target specified\n"), func(h *WALHead) { h.PGMajor = 0 })
	putWAL(t, e, WALName{Kind: pg.FileBackupLabel, Name: "000000010000000000000002.00000028.backup"}, []byte("x"), nil)
	putWAL(t, e, PartialFile("000000010000000000000003", 0x3000148), []byte("x"), nil)
	putConflict(t, e, HistoryFile(2), []byte("1\t0/3000130\tno recovery target specified\n"))

	b, err := e.CreateBackup(ctx, testLabel)
	require.NoError(t, err)
	p, err := b.NewPack(ctx)
	require.NoError(t, err)
	enc, err := codec.NewEncoder(r.codec)
	require.NoError(t, err)
	for _, f := range exampleFiles() {
		entry := fileEntry(f)
		if len(f.content) > 0 {
			frame, c, err := EncodeChunk(enc, nil, f.content)
			require.NoError(t, err)
			c.Pack = p.ID()
			c.Offset, err = p.Append(frame)
			require.NoError(t, err)
			entry.Chunks = []Chunk{c}
		}
		if f.path == "base/5/1259" { // the second page is the first one again
			entry.Extents = []Extent{{0, 8192, 0, 0}, {8192, 8192, 0, 0}}
			entry.BadPages = []uint32{1}
		}
		require.NoError(t, b.AddFile(entry))
	}
	require.NoError(t, p.Close())
	h, s := testHeader(), testSummary()
	h.SegmentSize, s.SegmentSize = 16<<20, 16<<20
	h.Tablespaces = []Tablespace{{OID: 16400, Name: "fast", Path: "/srv/fast"}}
	_, err = b.Commit(ctx, h, s)
	require.NoError(t, err)

	put(t, store, e.journalKey(testLabel, 0, strings.Repeat("0", 64)), []byte("x"))
	lease, err := seal(leaseRecord{
		Format: 1, Name: "backup", Token: "JOYT6XQY5EZ2P3MTBNQ7LBQBPK", Holder: "pg-0, process 4711", What: "full backup " + string(testLabel),
		Since: testTime, Renewed: testTime.Add(15 * time.Second), Count: 2, TTL: 60,
		process: process{Host: "pg-0", Boot: "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9", Namespace: "pid:[4026531836]", PID: 4711, Start: "123456"},
	})
	require.NoError(t, err)
	put(t, store, leaseKey("backup"), lease)
	until := testTime.AddDate(1, 0, 0)
	pin, err := seal(Pin{Format: 1, Label: testLabel, Created: testTime, Until: &until, By: "ann on pg-0", Reason: "before the upgrade"})
	require.NoError(t, err)
	put(t, store, e.pinPrefix(testLabel)+"JOYT6XQY5EZ2P3MTBNQ7LBQBPK", pin)
	run := JobRun{
		Format: 1, ID: "20261122-010000-JOYT6XQY5EZ2P3MTBNQ7LBQBPK", Kind: "full", Due: testTime, Attempt: 1, Started: testTime, By: "pg-0",
		Ended: testTime.Add(time.Minute), Outcome: RunDone, Label: testLabel,
	}
	ended, err := seal(run)
	require.NoError(t, err)
	put(t, store, runKey(run.ID, "end"), ended)
	pause, err := seal(Pause{Format: 1, Since: testTime, By: "ann"})
	require.NoError(t, err)
	put(t, store, pausePrefix+"JOYT6XQY5EZ2P3MTBNQ7LBQBPK", pause)
	verified, err := seal(Verified{
		Format: 1, At: testTime, Level: "full", Backups: []VerifiedBackup{{testSystem, testLabel}},
		WAL: []VerifiedWAL{{testSystem, "000000010000000000000002", "000000010000000000000002"}},
	})
	require.NoError(t, err)
	put(t, store, verifiedPrefix+"20261122-010000-JOYT6XQY5EZ2P3MTBNQ7LBQBPK", verified)
	drill, err := seal(Drill{
		Format: 1, Started: testTime, Ended: testTime.Add(time.Minute), By: "pg-0", SystemID: testSystem, Backup: testLabel,
		Timeline: 2, LSN: 0x3000100, Bytes: 24 << 20, RestoreSeconds: 21.5, RecoverySeconds: 12.25, CheckSeconds: 8,
		Checks: []DrillCheck{{Name: "pg_amcheck"}, {Name: "orders", Error: "it yields false"}}, Error: "orders: it yields false",
	})
	require.NoError(t, err)
	put(t, store, drillPrefix+"20261122-010000-JOYT6XQY5EZ2P3MTBNQ7LBQBPK", drill)
	return r, store
}

// examples are the blocks of FORMAT.md by name.
func examples(t *testing.T, r *Repository, store object.Store) map[string]string {
	e := r.Epoch(testSystem)
	manifest, err := io.ReadAll(codec.NewReader(bytes.NewReader(get(t, store, e.manifestKey(testLabel)))))
	require.NoError(t, err)
	segment := get(t, store, e.segmentKey("000000010000000000000002"))
	head, err := headFrame(segment)
	require.NoError(t, err)
	tail := segment[bytes.LastIndex(segment, []byte{0x51, 0x2a, 0x4d, 0x18})+8:]
	history, err := e.walKey(HistoryFile(2))
	require.NoError(t, err)
	return map[string]string{
		"walkeep":    string(get(t, store, markerKey)),
		"epoch":      string(get(t, store, epochKey(testSystem))),
		"wal head":   string(head),
		"wal tail":   string(tail),
		"wal object": hex.Dump(get(t, store, history)),
		"manifest":   string(manifest),
		"summary":    string(get(t, store, e.summaryKey(testLabel))),
		"lease":      string(get(t, store, leaseKey("backup"))),
		"run":        string(get(t, store, runKey("20261122-010000-JOYT6XQY5EZ2P3MTBNQ7LBQBPK", "end"))),
		"pause":      string(get(t, store, pausePrefix+"JOYT6XQY5EZ2P3MTBNQ7LBQBPK")),
		"verified":   string(get(t, store, verifiedPrefix+"20261122-010000-JOYT6XQY5EZ2P3MTBNQ7LBQBPK")),
		"drill":      string(get(t, store, drillPrefix+"20261122-010000-JOYT6XQY5EZ2P3MTBNQ7LBQBPK")),
		"pin":        string(get(t, store, e.pinPrefix(testLabel)+"JOYT6XQY5EZ2P3MTBNQ7LBQBPK")),
	}
}

// FORMAT.md shows what the code writes.
func TestFormatExamples(t *testing.T) {
	r, store := example(t)
	want := examples(t, r, store)
	page, err := os.ReadFile("FORMAT.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)<!-- example ([a-z ]+) -->\n```\n(.*?)```\n")
	var seen []string
	written := block.ReplaceAllStringFunc(string(page), func(old string) string {
		name := block.FindStringSubmatch(old)[1]
		seen = append(seen, name)
		return "<!-- example " + name + " -->\n```\n" + want[name] + "```\n"
	})
	require.ElementsMatch(t, slices.Collect(maps.Keys(want)), seen)
	if *update {
		require.NoError(t, os.WriteFile("FORMAT.md", []byte(written), 0o644))
		return
	}
	require.Equal(t, written, string(page), "FORMAT.md is not in step: run go test ./repo -run Format -update, and read the difference")
}

// The table of keys in FORMAT.md and the keys in use are the same.
func TestFormatKeys(t *testing.T) {
	page, err := os.ReadFile("FORMAT.md")
	require.NoError(t, err)
	parts := map[string]string{
		"sysid": "[1-9][0-9]*", "timeline": "[0-9A-F]{8}", "log": "[0-9A-F]{8}", "segment": "[0-9A-F]{24}", "offset": "[0-9A-F]{8}",
		"lsn": "[0-9A-F]{16}", "label": "[0-9]{8}-[0-9]{6}F(_[0-9]{8}-[0-9]{6}[DI])?", "number": "[0-9a-f]{8}", "name": "[-A-Za-z0-9_.]+",
		"file": ".*", "sha256": "[0-9a-f]{64}", "xxh3": "[0-9a-f]{32}", "token": "[A-Z2-7]{26}",
		"run": "[0-9]{8}-[0-9]{6}-[A-Z2-7]{26}", "part": "(begin|end)",
	}
	var patterns []*regexp.Regexp
	reserved := map[*regexp.Regexp]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*) \\|$").FindAllStringSubmatch(sectionOf(string(page), "Keys"), -1) {
		text := regexp.MustCompile("<([a-z0-9]+)>").ReplaceAllStringFunc(regexp.QuoteMeta(row[1]), func(p string) string {
			require.Contains(t, parts, strings.Trim(p, "<>"))
			return parts[strings.Trim(p, "<>")]
		})
		p := regexp.MustCompile("^" + text + "$")
		patterns = append(patterns, p)
		reserved[p] = strings.HasPrefix(row[2], "*reserved*")
	}
	require.Len(t, patterns, 17)
	_, store := example(t)
	used := map[*regexp.Regexp]bool{}
	for key := range contents(t, store) {
		var match []*regexp.Regexp
		for _, p := range patterns {
			if p.MatchString(key) {
				match = append(match, p)
			}
		}
		require.Len(t, match, 1, key)
		require.False(t, reserved[match[0]], key)
		used[match[0]] = true
	}
	for _, p := range patterns {
		require.Equal(t, !reserved[p], used[p], p.String())
	}
}

func sectionOf(page, title string) string {
	_, rest, _ := strings.Cut(page, "\n## "+title+"\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}

// A stranger restores with Python's standard library, zstd, age and xxh128sum.
func TestStranger(t *testing.T) {
	ctx := context.Background()
	script, err := filepath.Abs("testdata/stranger/restore.py")
	require.NoError(t, err)
	source, err := os.ReadFile(script)
	require.NoError(t, err)
	require.Less(t, bytes.Count(source, []byte("\n")), 150)
	k := newTestKeys(t)
	identity := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(identity, []byte(k.data.String()+"\n"), 0o600))
	for mode, keys := range map[string]*Keys{"plain": nil, "encrypted": k.keys(t, nil)} {
		for _, c := range []codec.Codec{{Name: codec.Zstd}, {Name: codec.LZ4}, {Name: codec.None}} {
			t.Run(mode+" "+c.String(), func(t *testing.T) {
				dir := t.TempDir()
				store, err := filesystem.New(filesystem.Options{Path: dir})
				require.NoError(t, err)
				e := testEpoch(t, testRepo(t, store, keys, c))
				files := testFiles()
				files[4].content = compressible(MaxChunk+100, 1) // the script's CRC-32C is slow
				_, err = writeBackup(ctx, e, testLabel, files)
				require.NoError(t, err)
				wal := compressible(1<<20, 9)
				putWAL(t, e, segment(1, 2), wal, nil)
				putWAL(t, e, HistoryFile(2), []byte("1\t0/3000148\tx\n"), nil)
				restore := func(what, name, target string) ([]byte, error) {
					args := []string{script, what, dir, testSystem.String(), name, target}
					if keys != nil {
						args = append(args, identity)
					}
					return exec.Command("python3", args...).CombinedOutput()
				}

				target := filepath.Join(t.TempDir(), "pgdata")
				out, err := restore("backup", string(testLabel), target)
				require.NoError(t, err, "%s", out)
				compareTree(t, target, files)
				file := filepath.Join(t.TempDir(), "wal")
				out, err = restore("wal", segment(1, 2).Name, file)
				require.NoError(t, err, "%s", out)
				got, err := os.ReadFile(file)
				require.NoError(t, err)
				require.True(t, bytes.Equal(wal, got))
				out, err = restore("wal", "00000002.history", file+"2")
				require.NoError(t, err, "%s", out)

				// It notices damage as well.
				pack := filepath.Join(dir, e.packKey(testLabel, 0))
				b, err := os.ReadFile(pack)
				require.NoError(t, err)
				b[len(b)-1] ^= 1
				require.NoError(t, os.WriteFile(pack, b, 0o600))
				_, err = restore("backup", string(testLabel), target+"2")
				require.Error(t, err)
			})
		}
	}
}

func compareTree(t *testing.T, root string, files []testFile) {
	want := map[string]testFile{}
	for _, f := range files {
		want[filepath.Join(root, f.path)] = f
	}
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		f, ok := want[path]
		require.True(t, ok, path)
		delete(want, path)
		info, err := d.Info()
		require.NoError(t, err)
		switch {
		case f.link != "" && !isTablespace(f.path):
			to, err := os.Readlink(path)
			require.NoError(t, err)
			require.Equal(t, f.link, to)
		case f.content == nil:
			require.True(t, info.IsDir(), path)
			require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		default:
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(f.content, b), path)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		}
		return nil
	}))
	require.Empty(t, want)
}
