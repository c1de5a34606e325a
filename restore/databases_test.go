package restore

import (
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

func TestChooseDatabases(t *testing.T) {
	h := repo.Header{Label: "20261122-010000F", Databases: []repo.Database{
		{OID: 1, Name: "template1"},
		{OID: 4, Name: "template0"},
		{OID: 20000, Name: "postgres"},
		{OID: 16400, Name: "shop"},
		{OID: 16401, Name: "stock"},
		{OID: 16402, Name: "16400"},
	}}
	for _, c := range []struct {
		include, exclude, out []string
		fails                 string
	}{
		{},
		{include: []string{"shop"}, out: []string{"16400", "stock"}},
		{include: []string{"16401"}, out: []string{"16400", "shop"}}, // by OID
		{include: []string{"16400"}, out: []string{"shop", "stock"}}, // a name goes first
		{include: []string{"shop", "stock", "postgres"}, out: []string{"16400"}},
		{include: []string{"postgres"}, out: []string{"16400", "shop", "stock"}},
		{exclude: []string{"shop"}, out: []string{"shop"}},
		{include: []string{"shop"}, exclude: []string{"stock"}, out: []string{"16400", "stock"}},
		{include: []string{"shop"}, exclude: []string{"shop"}, fails: "cannot be left out"},
		{exclude: []string{"postgres"}, fails: "cannot be left out"},
		{exclude: []string{"template0"}, fails: "cannot be left out"},
		{include: []string{"Shop"}, fails: "no such database, only template1, template0, postgres, shop, stock, 16400"},
	} {
		d, err := chooseDatabases(h, c.include, c.exclude)
		if c.fails != "" {
			require.ErrorIs(t, err, ErrBadRequest)
			require.ErrorContains(t, err, c.fails)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.out, d.list(), "%v %v", c.include, c.exclude)
	}
	_, err := chooseDatabases(repo.Header{}, []string{"shop"}, nil)
	require.ErrorIs(t, err, ErrBadRequest)

	d := &databases{leftOut: map[string]string{"16400": "shop"}}
	for path, out := range map[string]bool{
		"base/16400/1259": true, "base/16400/PG_VERSION": false, "base/16400": false, "base/16401/16400": false,
		"pg_tblspc/16500/PG_15_202209061/16400/99": true, "pg_tblspc/16400/PG_15_202209061/5/99": false, "global/16400/1": false,
	} {
		require.Equal(t, out, d.has(path), path)
	}
}

func TestCRCOfZeroes(t *testing.T) {
	for _, n := range []int64{0, 1, 7, 8192, 1 << 20, 1<<20 + 5} {
		require.Equal(t, crc32.Checksum(make([]byte, n), castagnoli), crcOfZeroes(n), n)
	}
}

// Of a database that is left out, files have their size and no content, whatever
// was there before; all others are as ever.
func TestRunLeavesDatabasesOut(t *testing.T) {
	rng := rand.New(rand.NewPCG(50, 1))
	p := newInPlace(t, rng)
	p.s.databases = []repo.Database{{OID: 5, Name: "postgres"}, {OID: 16384, Name: "shop"}, {OID: 16385, Name: "stock"}}
	p.c["base/16385/PG_VERSION"] = []byte("15\n")
	p.c["base/16385/2000"] = someData(rng, 3<<20)
	p.c["base/16385/2001"] = someData(rng, 8192)
	p.c[syntheticVer+"/16385/3001"] = someData(rng, 2<<20)
	p.sum = p.s.backup(p.c, repo.Full, 300_000, map[string]string{syntheticTS: p.ts})
	zeroed := content{}
	for path, b := range p.c {
		zeroed[path] = b
	}
	for _, path := range []string{"base/16385/2000", "base/16385/2001", syntheticVer + "/16385/3001"} {
		zeroed[path] = make([]byte, len(p.c[path]))
	}
	o := deltaOptions(p.dir)
	o.Include = []string{"shop"}
	whole := deltaOptions(p.dir)
	for _, first := range []bool{true, false} { // into nothing, and over what is there
		if !first {
			require.NoError(t, p.restore(t, whole))
		}
		res, err := Run(t.Context(), p.s.plan(p.sum), o)
		require.NoError(t, err)
		require.Equal(t, []string{"stock"}, res.LeftOut)
		requireRestored(t, p.dir, zeroed, map[string]string{syntheticTS: p.ts})
		st, err := os.Stat(filepath.Join(p.dir, "base/16385/2000"))
		require.NoError(t, err)
		require.Zero(t, st.Sys().(*syscall.Stat_t).Blocks)
	}
	standby := p.s.plan(p.sum)
	standby.Standby = true
	_, err := Run(t.Context(), standby, o)
	require.ErrorIs(t, err, ErrBadRequest)
}
