package repo

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/codec"
)

func TestNewKeys(t *testing.T) {
	k := newTestKeys(t)
	one, err := NewKeys(KeyOptions{Identity: "# created: today\n# public key: x\n" + k.data.String() + "\n\n"})
	require.NoError(t, err)
	require.True(t, one.CanReadData())
	require.True(t, one.CanReadMetadata())
	require.Equal(t, []string{k.data.Recipient().String()}, one.metadata.names)

	writer, err := NewKeys(KeyOptions{Recipients: k.data.Recipient().String()})
	require.NoError(t, err)
	require.False(t, writer.CanReadData())
	require.False(t, writer.CanReadMetadata())

	node, err := NewKeys(KeyOptions{Recipients: k.data.Recipient().String(), MetadataIdentity: k.metadata.String()})
	require.NoError(t, err)
	require.False(t, node.CanReadData())
	require.True(t, node.CanReadMetadata())
	require.Equal(t, []string{k.data.Recipient().String(), k.metadata.Recipient().String()}, node.metadata.names)
	require.Equal(t, []string{k.metadata.Recipient().String()}, node.extraNames)

	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	quantum, err := NewKeys(KeyOptions{Identity: hybrid.String()})
	require.NoError(t, err)
	require.True(t, quantum.CanReadData())

	for name, o := range map[string]KeyOptions{
		"nothing":        {},
		"comments only":  {Identity: "# nothing\n"},
		"metadata only":  {MetadataIdentity: k.metadata.String()},
		"not recipients": {Recipients: "age1nonsense"},
		"not identities": {Identity: "AGE-SECRET-KEY-1NONSENSE"},
		"other identity": {Recipients: k.data.Recipient().String(), Identity: k.metadata.String()},
		"mixed kinds":    {Identity: hybrid.String(), MetadataIdentity: k.metadata.String()},
	} {
		_, err := NewKeys(o)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "SECRET-KEY-1N", name)
	}
}

// A node's metadata identity reads summaries, manifests and heads, but not a
// page and not a byte of WAL.
func TestWhoCanReadWhat(t *testing.T) {
	ctx := context.Background()
	k := newTestKeys(t)
	store := newMemory()
	e := testEpoch(t, testRepo(t, store, k.keys(t, nil), codec.Codec{}))
	s, err := writeBackup(ctx, e, testLabel, testFiles())
	require.NoError(t, err)
	putWAL(t, e, segment(1, 1), []byte("secret"), nil)
	for key, b := range contents(t, store) {
		require.False(t, bytes.Contains(b, []byte("secret")), key)
		require.False(t, bytes.Contains(b, []byte("PG_VERSION")), key)
		if key != markerKey {
			require.True(t, bytes.HasPrefix(b, []byte(ageIntro)), key)
		}
	}

	as := func(change func(*KeyOptions)) *Epoch {
		return testRepo(t, store, k.keys(t, change), codec.Codec{}).Epoch(testSystem)
	}
	node := as(func(o *KeyOptions) { o.Identity = "" })
	_, err = node.Info(ctx)
	require.NoError(t, err)
	list, err := node.Backups(ctx)
	require.NoError(t, err)
	require.Equal(t, []Summary{s}, list)
	m, err := node.OpenManifest(ctx, s)
	require.NoError(t, err)
	defer m.Close()
	_, err = m.Next()
	require.NoError(t, err)
	_, err = node.WALHead(ctx, segment(1, 1))
	require.NoError(t, err)
	_, err = node.GetWAL(ctx, segment(1, 1), io.Discard)
	require.ErrorIs(t, err, ErrNoIdentity)
	require.ErrorContains(t, err, k.data.Recipient().String())
	_, err = node.OpenPack(ctx, m.Packs()[0])
	require.ErrorIs(t, err, ErrNoIdentity)

	// The data identity alone reads it all.
	owner := as(func(o *KeyOptions) { o.MetadataIdentity = "" })
	files, err := readBackup(ctx, owner, testLabel)
	require.NoError(t, err)
	require.Equal(t, testFiles(), files)
	_, err = owner.WALHead(ctx, segment(1, 1))
	require.NoError(t, err)

	// Recipients alone write, and read nothing; a known epoch is no obstacle.
	writer := as(func(o *KeyOptions) { o.Identity, o.MetadataIdentity = "", "" })
	_, err = writer.r.EnsureEpoch(ctx, EpochInfo{SystemID: testSystem, PGMajor: 15, SegmentSize: 1 << 20})
	require.NoError(t, err)
	_, err = writer.WALHead(ctx, segment(1, 1))
	require.ErrorIs(t, err, ErrNoIdentity)
	putWAL(t, writer, segment(1, 2), []byte("x"), nil)

	// Another's identity: a matter of configuration, not damage.
	other := newTestKeys(t)
	stranger := testRepo(t, store, other.keys(t, nil), codec.Codec{}).Epoch(testSystem)
	for _, read := range []func() error{
		func() error { _, err := stranger.Info(ctx); return err },
		func() error { _, err := stranger.Summary(ctx, testLabel); return err },
		func() error { _, err := stranger.OpenManifest(ctx, s); return err },
		func() error { _, err := stranger.WALHead(ctx, segment(1, 1)); return err },
		func() error { _, err := stranger.GetWAL(ctx, segment(1, 1), io.Discard); return err },
		func() error { _, err := stranger.OpenPack(ctx, m.Packs()[0]); return err },
	} {
		err := read()
		require.ErrorIs(t, err, ErrNoIdentity)
		require.NotErrorIs(t, err, ErrIntegrity)
		require.ErrorContains(t, err, k.data.Recipient().String())
	}

	// No keys at all.
	plain := testRepo(t, store, nil, codec.Codec{})
	require.ErrorIs(t, plain.Init(ctx), ErrMismatch)
	_, err = plain.Epoch(testSystem).Summary(ctx, testLabel)
	require.ErrorIs(t, err, ErrNoIdentity)
	_, err = plain.Epoch(testSystem).WALHead(ctx, segment(1, 1))
	require.ErrorIs(t, err, ErrNoIdentity)
}

func TestHybridRecipients(t *testing.T) {
	id, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	keys, err := NewKeys(KeyOptions{Identity: id.String()})
	require.NoError(t, err)
	e := testEpoch(t, testRepo(t, newMemory(), keys, codec.Codec{}))
	putWAL(t, e, segment(1, 1), []byte("x"), nil)
	_, err = e.WALHead(context.Background(), segment(1, 1))
	require.NoError(t, err)
	_, err = writeBackup(context.Background(), e, testLabel, testFiles())
	require.NoError(t, err)
	_, err = readBackup(context.Background(), e, testLabel)
	require.NoError(t, err)
}

func TestInit(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	r := testRepo(t, store, nil, codec.Codec{})
	_, err := r.Marker(ctx)
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, r.Init(ctx))
	require.NoError(t, r.Init(ctx))
	m, err := r.Marker(ctx)
	require.NoError(t, err)
	require.Equal(t, Marker{Format: 1, Cluster: "hippo", Created: testTime}, m)

	keys := newTestKeys(t).keys(t, nil)
	require.ErrorIs(t, testRepo(t, store, keys, codec.Codec{}).Init(ctx), ErrMismatch)
	other, err := Open(Options{Store: store, Cluster: "rhino"})
	require.NoError(t, err)
	require.ErrorIs(t, other.Init(ctx), ErrMismatch)
	later, err := seal(Marker{Format: 2, Cluster: "hippo"})
	require.NoError(t, err)
	put(t, store, markerKey, later)
	require.ErrorIs(t, r.Init(ctx), ErrMismatch)

	_, err = Open(Options{})
	require.Error(t, err)
	_, err = Open(Options{Store: store, Cluster: "x", Codec: codec.Codec{Name: "gzip"}})
	require.Error(t, err)
}

func TestEpochs(t *testing.T) {
	ctx := context.Background()
	modes(t, func(t *testing.T, keys *Keys) {
		r := testRepo(t, newMemory(), keys, codec.Codec{})
		testEpoch(t, r)
		testEpoch(t, r)
		_, err := r.EnsureEpoch(ctx, EpochInfo{SystemID: testSystem, PGMajor: 16, SegmentSize: 1 << 20})
		require.ErrorIs(t, err, ErrMismatch)
		_, err = r.EnsureEpoch(ctx, EpochInfo{SystemID: 5, PGMajor: 16, SegmentSize: 3})
		require.Error(t, err)
		_, err = r.EnsureEpoch(ctx, EpochInfo{SystemID: 8, PGMajor: 16, SegmentSize: 1 << 24})
		require.NoError(t, err)
		list, err := r.Epochs(ctx)
		require.NoError(t, err)
		require.Len(t, list, 2)
		_, err = r.Epoch(9).Info(ctx)
		require.ErrorIs(t, err, ErrNotFound)
	})
}

func TestLabels(t *testing.T) {
	full, err := NewLabel(Full, "", testTime)
	require.NoError(t, err)
	require.Equal(t, testLabel, full)
	diff, err := NewLabel(Differential, full, testTime.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.EqualValues(t, "20261122-010000F_20261123-010000D", diff)
	incr, err := NewLabel(Incremental, diff, testTime.AddDate(0, 0, 1).Add(90*60e9))
	require.NoError(t, err)
	require.EqualValues(t, "20261122-010000F_20261123-023000I", incr)
	require.Equal(t, full, incr.Full())
	require.Equal(t, []BackupType{Full, Differential, Incremental, ""}, []BackupType{full.Type(), diff.Type(), incr.Type(), Label("").Type()})
	require.Equal(t, testTime.AddDate(0, 0, 1), diff.Time())
	require.Equal(t, testTime, full.Time())
	_, err = NewLabel(Incremental, "", testTime)
	require.Error(t, err)
	for _, s := range []string{"", "20261122-010000", "20261122-010000D", "20261322-010000F", "20261122-010000F_", "20261122-010000F_20261123-010000F", "../20261122-010000F", "20261122-010000F_20261123-010000D_20261123-010000I"} {
		_, err := ParseLabel(s)
		require.Error(t, err, s)
	}
	for _, s := range []string{"full", "differential", "incremental"} {
		typ, err := ParseBackupType(s)
		require.NoError(t, err)
		require.EqualValues(t, s, typ)
	}
	_, err = ParseBackupType("diff")
	require.Error(t, err)
}

func FuzzLabel(f *testing.F) {
	f.Add("20261122-010000F")
	f.Add("20261122-010000F_20261123-010000I")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLabel(s)
		if err != nil {
			return
		}
		again, err := NewLabel(l.Type(), l, l.Time())
		require.NoError(t, err)
		require.Equal(t, l, again)
	})
}

func TestSealed(t *testing.T) {
	b, err := seal(map[string]string{"a": "<\n>"})
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(b), "\n"))
	var v map[string]string
	require.NoError(t, unseal(b, &v))
	require.Equal(t, "<\n>", v["a"])
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			require.Error(t, unseal(bad, &v))
		}
		require.Error(t, unseal(b[:i], &v))
		require.Error(t, unseal(b[i+1:], &v))
	}
	require.Error(t, unseal(append(b, '\n'), &v))
}

func FuzzUnseal(f *testing.F) {
	b, err := seal(Marker{Format: 1})
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		var m Marker
		_ = unseal(b, &m)
	})
}
