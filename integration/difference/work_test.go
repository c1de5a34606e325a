package difference

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
)

// works are statements that move pages, each batch with parameters of its own:
// %d is a random number. Statements that fail are no error: what they need may
// not be there at the moment.
var works = []string{
	`insert into t select g, md5(g::text), repeat('x', g % 300) from generate_series($n, $n + 500) g on conflict do nothing`,
	`update t set b = md5(b) where a % 97 = $n % 97`,
	`update h set n = n + 1 where i % 13 = $n % 13`, // HOT
	`delete from t where a % 11 = $n % 11`,
	`vacuum t`, `vacuum (freeze) h`, `vacuum full t`, `cluster t using t_pkey`,
	`truncate u; insert into u select g, g from generate_series(1, 3000) g`,
	`begin; insert into u select g, g from generate_series(1, 20000) g; truncate u; insert into u select g, g from generate_series(1, 5) g; commit`,
	`delete from u where i > 10; vacuum u; insert into u select g, g from generate_series(1, $n) g`, // truncated and grown again
	`drop table if exists d; create table d as select g, repeat('d', 200) x from generate_series(1, $n) g`,
	`create index d_btree on d (g); create index d_hash on d using hash (g); create index d_brin on d using brin (g)`,
	`create index d_gist on d using gist (point(g, g)); create index d_spgist on d using spgist (point(g, g)); create index d_gin on d using gin (string_to_array(x, 'd'))`,
	`reindex table t`, `reindex index concurrently t_pkey`,
	`drop table if exists n; create unlogged table n as select g from generate_series(1, 2000) g`,
	`alter table n set logged`, `alter table n set unlogged`,
	`alter table d set tablespace side`, `alter table d set tablespace pg_default`, `alter table t set (fillfactor = 70)`,
	`begin; insert into t select g, 'prepared', '' from generate_series(-$n - 300, -$n) g on conflict do nothing; create table if not exists p as select 1 i; prepare transaction 'p'`,
	`commit prepared 'p'`, `rollback prepared 'p'`,
	`begin; create table r as select generate_series(1, 3000) i; rollback`,
	`select lo_from_bytea(0, decode(repeat('ab', $n), 'hex'))`, `select lo_unlink(oid) from pg_largeobject_metadata limit 3`,
	`select nextval('s') from generate_series(1, 100)`,
	`alter table t add column if not exists c int default $n`, `alter table t drop column if exists c`,
	`drop database if exists one`, `create database one`, `drop database if exists two`,
	`create database two template one oid 77777 strategy file_copy`, `create database two template one oid 77777`,
	`drop database two; create database two template template0 oid 77777 strategy file_copy`,
	`drop database if exists two; create database two template template0`, `alter database one set tablespace side`, `alter database one set tablespace pg_default`,
	`checkpoint`, `select pg_switch_wal()`, `select txid_current()`, `analyze`,
	`insert into toast select g, (select string_agg(md5(random()::text), '') from generate_series(1, 200)) from generate_series(1, 20) g; delete from toast where g % 3 = $n % 3`,
}

const setup = `
	create table t (a int primary key, b text, c0 text);
	create table h (i int primary key, n int) with (fillfactor = 50);
	insert into h select g, 0 from generate_series(1, 20000) g;
	create table u (i int, j int); create index on u (i);
	create table toast (g int, x text);
	create sequence s;
	insert into t select g, md5(g::text), 'start' from generate_series(1, 30000) g;
	create table still as select g, repeat('s', 500) x from generate_series(1, 30000) g;
	create table wide as select g, repeat('w', 900) x from generate_series(1, 40000) g`

// work does some of the works.
func (w *world) work(ctx context.Context, rng *rand.Rand, n int) {
	conn, err := w.server.Connect(ctx)
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// A prepared transaction holds its locks until another statement ends it.
	if _, err := conn.Exec(ctx, `set lock_timeout = '300ms'`); err != nil {
		return
	}
	for range n {
		sql := works[rng.IntN(len(works))]
		if rng.IntN(4) == 0 {
			sql = `update wide set x = md5(x) || repeat('w', 860) where g % 1000 = $n % 1000`
		}
		sql = strings.ReplaceAll(sql, "$n", strconv.Itoa(100+rng.IntN(3000)))
		for _, one := range append(strings.Split(sql, "; "), "rollback") {
			if _, err := conn.PgConn().Exec(ctx, one).ReadAll(); err != nil && ctx.Err() != nil {
				return
			}
		}
	}
}
