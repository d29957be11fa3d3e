package integration

import (
	"fmt"
	"testing"
)

// sqlite3 with both kinds of journal: several processes write at once, one dies in the middle of a transaction, and what it left is
// rolled back after a remount. WAL shares memory between processes by a file of the mount.
func TestSQLite(t *testing.T) {
	for _, o := range []options{{}, {writeThrough: true}} {
		for _, journal := range []string{"DELETE", "WAL"} {
			t.Run(o.String()+"/"+journal, func(t *testing.T) { sqlite(t, program(t, o, "sqlite3"), journal) })
		}
	}
}

func sqlite(t *testing.T, p *prog, journal string) {
	const writers = 4
	rounds := times(15, 300)
	sql := func(script string) string {
		t.Helper()
		return p.run(p.dir, "sqlite3", "-bail", "-cmd", ".timeout 60000", "test.db", script)
	}
	check := func(rows int) {
		t.Helper()
		p.equal("integrity", sql("PRAGMA integrity_check; PRAGMA foreign_key_check"), "ok")
		p.equal("counter and rows", sql("SELECT n, (SELECT count(*) FROM log), (SELECT count(DISTINCT who||':'||k) FROM log) FROM counter"),
			fmt.Sprintf("%d|%d|%d", rows, rows, rows))
	}
	sql("PRAGMA journal_mode=" + journal + `;
		CREATE TABLE counter(n INTEGER); INSERT INTO counter VALUES(0);
		CREATE TABLE log(who INTEGER, k INTEGER, data BLOB); CREATE INDEX bywho ON log(who, k);`)
	p.together(writers, p.dir, "bash", "-euc", fmt.Sprintf(`for k in $(seq %d); do
		echo "BEGIN IMMEDIATE; INSERT INTO log VALUES($0, $k, randomblob(3000)); UPDATE counter SET n=n+1; COMMIT;"
		done | sqlite3 -bail -cmd '.timeout 60000' test.db`, rounds))
	rows := writers * rounds
	check(rows)
	p.checkRemount()
	check(rows)

	// A writer that dies with half of a large transaction in the database (DELETE) or in the log (WAL).
	b := p.background(p.dir, "sqlite3", "-bail", "-cmd", ".timeout 60000", "test.db")
	b.say("PRAGMA cache_size=5; BEGIN IMMEDIATE; UPDATE counter SET n=-1;")
	b.say("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i<500) INSERT INTO log SELECT 99, i, randomblob(3000) FROM s;")
	b.say("SELECT 'half';")
	b.expect("half")
	b.kill()
	p.checkRemount()
	check(rows)
	sql("DELETE FROM log WHERE k % 2; UPDATE counter SET n=(SELECT count(*) FROM log); VACUUM;")
	check(writers * (rounds / 2))
	p.checkRemount()
	check(writers * (rounds / 2))
}
